"""Connections on a virtual clock: messages are late, come twice, and wait where a link is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from distredge.plan.execution import REQUESTER
from distredge.sim.fault_peer import FaultyPeer

if TYPE_CHECKING:
    from distredge.sim.faults import FaultRun

DELAY_S = 0.004
SLOWED = 20.0


class FaultyNetwork:
    """Who reaches whom, and when.

    Of each peer the requester has one connection at a time, with an identity: what an earlier one brought
    does not count. A connection between peers has the number of times that it was lost before.

    Args:
        run: the world.
    """

    def __init__(self, run: FaultRun) -> None:
        self._run = run
        devices = run.world.devices
        self.identity = list(range(devices))
        self._identities = devices
        self._fifo: dict[tuple[int, int], float] = {}
        self._cut_until: dict[frozenset[int], float] = {}
        self._slowed_until: dict[frozenset[int], float] = {}
        self._lost: dict[tuple[int, int], int] = {}

    # ------------------------------------------------------------------ what goes wrong

    def cut(self, one: int, other: int, seconds: float) -> None:
        """Nothing arrives for so long; it comes later."""
        pair = frozenset((one, other))
        self._cut_until[pair] = max(self._cut_until.get(pair, 0.0), self._run.now + seconds)

    def slow(self, one: int, other: int, seconds: float) -> None:
        """Everything takes many times as long, for so long."""
        self._slowed_until[frozenset((one, other))] = self._run.now + seconds

    def hang_up(self, device: int) -> None:
        """The requester's next message to a peer goes over a new connection."""
        self._identities += 1
        self.identity[device] = self._identities

    def lose(self, source: int, target: int) -> None:
        """What a peer has sent to another over this connection is gone."""
        self._lost[source, target] = self._lost.get((source, target), 0) + 1

    # ------------------------------------------------------------------ messages

    def say(self, device: int, what: str, *arguments: Any) -> None:
        """The requester says something to a peer; in order."""
        args = (device, self._run.peers[device].life, self.identity[device], what, arguments)
        self._post(REQUESTER, device, self._arrive, *args)

    def _arrive(self, device: int, life: int, identity: int, what: str, arguments: tuple[Any, ...]) -> None:
        peer = self._run.peers[device]
        if not peer.is_alive or peer.life != life:
            return
        if self._held_up(REQUESTER, device, self._arrive, device, life, identity, what, arguments):
            return
        if what == "join":
            if identity == self.identity[device]:
                peer.join(identity)
                self.tell_requester(peer, "welcome", -1)
        elif peer.identity == identity:
            getattr(peer, what)(*arguments)

    def tell_requester(self, peer: FaultyPeer, what: str, epoch: int, about: int = -1) -> None:
        """A peer says something to the requester, in order; to one that has hung up, it ends the session."""
        if peer.identity != self.identity[peer.device] and self._run.rng.random() < 0.5:
            peer.forget()
            return
        args = (peer.device, peer.identity, what, epoch, about)
        self._post(peer.device, REQUESTER, self._heard, *args)

    def _heard(self, sender: int, identity: int, what: str, epoch: int, about: int) -> None:
        if self.identity[sender] == identity:
            self._run.requester.hear(sender, what, epoch, about)

    def send_rows(self, source: int, target: int, epoch: int, frame: int, number: int) -> None:
        """Rows, in any order, and sometimes twice."""
        run = self._run
        for _ in range(2 if run.rng.random() < 0.03 else 1):
            delay = run.draw(DELAY_S) * self._slowness(source, target)
            if target == REQUESTER:
                identity = run.peers[source].identity
                run.later(delay, self._rows_to_requester, source, identity, epoch, frame, number)
            else:
                link = self.identity[target] if source == REQUESTER else self._lost.get((source, target), 0)
                args = (source, target, run.peers[target].life, link, epoch, frame, number)
                run.later(delay, self._rows_to_peer, *args)

    def _rows_to_requester(self, source: int, identity: int, epoch: int, frame: int, number: int) -> None:
        args = (source, identity, epoch, frame, number)
        if self._held_up(source, REQUESTER, self._rows_to_requester, *args):
            return
        if self.identity[source] == identity:
            self._run.requester.take_rows(epoch, frame, number)

    def _rows_to_peer(
        self, source: int, target: int, life: int, link: int, epoch: int, frame: int, number: int
    ) -> None:
        peer = self._run.peers[target]
        if not peer.is_alive or peer.life != life:
            return
        args = (source, target, life, link, epoch, frame, number)
        if self._held_up(source, target, self._rows_to_peer, *args):
            return
        if source != REQUESTER and self._lost.get((source, target), 0) != link:
            return
        peer.rows(source, epoch, frame, number)

    def answer_unknown(self, peer: FaultyPeer, sender: int, epoch: int) -> None:
        """A peer knows nothing of an epoch, and says so to who sent rows of it."""
        if sender == REQUESTER:
            return

        def complain(memory: int) -> None:
            neighbour = self._run.peers[sender]
            if neighbour.is_alive and neighbour.memory == memory and epoch in neighbour.book.plans:
                self.tell_requester(neighbour, "complaint", epoch, peer.device)

        self._post(peer.device, sender, complain, self._run.peers[sender].memory)

    def _post(self, source: int, target: int, what: Callable[..., None], *arguments: Any) -> None:
        """A message that keeps its place in its connection."""
        now = self._run.now
        delay = self._run.draw(DELAY_S) * self._slowness(source, target)
        due = max(self._fifo.get((source, target), 0.0), now + delay)
        self._fifo[source, target] = due
        self._run.later(due - now, what, *arguments)

    def _held_up(self, source: int, target: int, what: Callable[..., None], *arguments: Any) -> bool:
        """Whether a message cannot arrive now, as the link is cut or the receiver hangs: it comes later."""
        until = self._cut_until.get(frozenset((source, target)), 0.0)
        if target != REQUESTER:
            until = max(until, self._run.peers[target].hung_until)
        if until <= self._run.now:
            return False
        self._run.at(until, what, *arguments)
        return True

    def _slowness(self, source: int, target: int) -> float:
        return SLOWED if self._run.now < self._slowed_until.get(frozenset((source, target)), 0.0) else 1.0
