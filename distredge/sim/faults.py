"""A whole session under faults, on a virtual clock: the real state machines, invariants after every event.

Everything follows from the seed: what goes wrong, when, how long each message and part takes. Connections
keep the order of what the requester says; rows may overtake anything and come twice.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, NoReturn

from distredge.errors import DistrEdgeError
from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.protocol.epochs import EpochBook
from distredge.protocol.events import (
    AnnouncePlan,
    DeliverFrame,
    DeviceBack,
    DeviceLost,
    DeviceReady,
    FindPlan,
    ForgetFrame,
    FrameDropped,
    FrameSubmitted,
    LeaveEpoch,
    Members,
    PlanFound,
    RejectRows,
    RetireEpoch,
    RowsArrived,
    SendRows,
    SessionEvent,
    SessionInstruction,
    Under,
    UseEpoch,
)
from distredge.protocol.provider import ProviderState
from distredge.protocol.succession import Succession, involved_devices
from distredge.sim.fault_peer import FaultyPeer, Hosted
from distredge.sim.fault_script import Fault, draw_faults

DELAY_S = 0.004
SILENCE_S, SETTLE_S, KNOCK_S, CUT_OFF_S = 1.0, 0.3, 0.2, 5.0
"""As in `distredge.runtime.membership`."""
STANDSTILL_S = 30.0
"""Without an answer or a fault for so long, nothing will come any more."""
QUIET_S = 20.0
"""After the last answer: time to be in order again."""


class Violation(DistrEdgeError):
    """An invariant does not hold; `seed` finds it again, `log` tells what happened."""

    seed: int
    log: list[str]


@dataclass(frozen=True)
class Parts:
    """The state machines under test; a test of the tests puts broken ones in their place."""

    succession: Callable[[Members], Succession] = Succession
    provider: Callable[[ExecutionPlan, int], ProviderState] = ProviderState
    book: Callable[[], EpochBook[Hosted]] = EpochBook


class Facts:
    """What must be known of a plan in every run, made once."""

    def __init__(self, plan: ExecutionPlan) -> None:
        self.involved = tuple(sorted(involved_devices(plan)))
        self.sources = {
            task.id: frozenset((piece.transfer, piece.task) for item in task.inputs for piece in item.pieces)
            for task in plan.tasks
        }
        self.targets: dict[int, set[int]] = {device: set() for device in range(len(plan.devices))}
        for transfer in plan.transfers:
            if REQUESTER not in (transfer.source, transfer.target):
                self.targets[transfer.source].add(transfer.target)


class World:
    """The plans that runs have.

    Args:
        plans: one for all devices, and one for every part of them.
        other: another one for all.
    """

    def __init__(self, plans: Mapping[Members, ExecutionPlan], other: ExecutionPlan) -> None:
        self.devices = len(other.devices)
        self.plans, self.other = plans, other
        self._facts = {id(plan): Facts(plan) for plan in (*plans.values(), other)}

    def facts(self, plan: ExecutionPlan) -> Facts:
        """Of one of these plans."""
        return self._facts[id(plan)]


class FaultRun:
    """One seeded run.

    Args:
        world: the plans.
        seed: of everything.
        frames: how many.
        in_flight: open at a time.
        parts: the state machines.
    """

    def __init__(
        self, world: World, seed: int, *, frames: int = 14, in_flight: int = 3, parts: Parts | None = None
    ) -> None:
        self.world, self.seed, self.parts = world, seed, parts or Parts()
        self.rng = random.Random(seed)
        self.now = 0.0
        self.events = 0
        self.log: list[str] = []
        self.answered: list[int] = []
        self._frames, self._in_flight = frames, in_flight
        self._epoch_limit = 2 * world.devices + 6
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._faults = draw_faults(self.rng, world.devices)
        self._disturbed_s = 0.0
        self._has_begun = False
        everybody = frozenset(range(world.devices))
        self.requester = self.parts.succession(everybody)
        self._plans: dict[int, ExecutionPlan] = {}
        self._received: dict[tuple[int, int], set[int]] = {}
        self._dropped: set[int] = set()
        self._submitted = 0
        self._epochs = 0
        self._identity = list(range(world.devices))
        self._identities = world.devices
        self._fifo: dict[tuple[int, int], float] = {}
        self._cut_until: dict[frozenset[int], float] = {}
        self._slowed: dict[frozenset[int], tuple[float, float]] = {}
        self._broken: dict[tuple[int, int], int] = {}
        self.peers = [FaultyPeer(self, device) for device in range(world.devices)]
        for peer in self.peers:
            peer.join(self._identity[peer.device])
        self._use(world.plans[everybody], everybody)

    # ------------------------------------------------------------------ the clock

    def later(self, seconds: float, what: Callable[..., None], *arguments: Any) -> None:
        """Something happens so many seconds from now."""
        self._order += 1
        heappush(self._heap, (self.now + seconds, self._order, what, arguments))

    def draw(self, mean_s: float) -> float:
        """A duration: mostly about the mean, now and then many times that."""
        return mean_s * (0.5 + self.rng.random()) * (10 if self.rng.random() < 0.02 else 1)

    def note(self, text: str) -> None:
        """A line for whoever must understand the run."""
        self.log.append(f"{self.now:9.4f}  {text}")

    def violation(self, text: str) -> NoReturn:
        """An invariant does not hold."""
        self.note(text)
        raise Violation(f"seed {self.seed}: {text}", seed=self.seed, log=self.log)

    def run(self) -> FaultRun:
        """Until every frame is answered and all is in order again.

        Raises:
            Violation: an invariant does not hold.
        """
        self._submit_more()
        done_s = float("inf")
        while self._heap:
            self.now, _, what, arguments = heappop(self._heap)
            while self._has_begun and self._faults and self._faults[0].after <= self.events:
                self._strike(self._faults.pop(0))
            what(*arguments)
            self.events += self._has_begun  # a session that cannot begin is an error, not a fault
            self._check()
            if self._is_done:
                while self._faults:  # those that would have come too late
                    self._faults.pop()
                done_s = min(done_s, self.now)
                if self.now > max(done_s, self._disturbed_s) + QUIET_S:
                    break
        if not self._is_done:
            self.violation("nothing happens any more, and frames are open")
        self._check_end()
        return self

    @property
    def _is_done(self) -> bool:
        return len(self.answered) + len(self._dropped) == self._frames

    # ------------------------------------------------------------------ invariants

    def check_kept(self, who: str, epochs: int, frames: int) -> None:
        """To be called whenever somebody keeps more than before."""
        if epochs > self._epoch_limit:
            self.violation(f"{who} keeps {epochs} epochs")
        if frames > self._epoch_limit + 2 * self._in_flight:
            self.violation(f"{who} keeps rows of {frames} frames")

    def _check(self) -> None:
        if not self._is_done and self.now - self._disturbed_s > STANDSTILL_S:
            self.violation("there is no progress")

    def _check_end(self) -> None:
        if sorted({*self.answered, *self._dropped}) != list(range(self._frames)):
            self.violation("not every frame was answered")
        if self.requester.frames or self._received:
            self.violation("the requester keeps frames that are over")
        alive = frozenset(peer.device for peer in self.peers if peer.is_alive)
        if self.requester.members != alive:
            self.violation(f"members are {set(self.requester.members)}, alive {set(alive)}")
        if not self.requester.is_settled:
            self.violation("plans are not settled")
        for peer in self.peers:
            extra = set(peer.book.plans) - set(self.requester.epochs)
            if extra:
                self.violation(f"device {peer.device} keeps epochs {extra} that are over")
            if peer.frames:
                self.violation(f"device {peer.device} keeps rows of {peer.frames} frames that are over")

    # ------------------------------------------------------------------ the requester

    def _tell(self, event: SessionEvent) -> None:
        self._perform(self.requester.handle(event))

    def _perform(self, instructions: list[SessionInstruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Under(epoch, SendRows(frame, number)):
                    self._received.setdefault((epoch, frame), set())
                    target = self._plans[epoch].transfers[number].target
                    self.send_rows(REQUESTER, target, epoch, frame, number)
                case Under(epoch, DeliverFrame(frame)):
                    self._deliver(epoch, frame)
                case Under(epoch, ForgetFrame(frame)):
                    self._received.pop((epoch, frame), None)
                    for device in self.world.facts(self._plans[epoch]).involved:
                        self._say(device, "drop", epoch, frame)
                case Under(_, RejectRows()):
                    pass
                case FindPlan(members):
                    self.later(self.draw(0.02), self._found, members)
                case AnnouncePlan(epoch):
                    self.check_kept("the requester", len(self.requester.epochs), len(self._received))
                    for device in self.world.facts(self._plans[epoch]).involved:
                        self._say(device, "use", epoch, self._plans[epoch])
                case RetireEpoch(epoch):
                    for key in [key for key in self._received if key[0] == epoch]:
                        del self._received[key]
                    for device in self.world.facts(self._plans.pop(epoch)).involved:
                        self._say(device, "retire", epoch)

    def _found(self, members: Members) -> None:
        self._epochs += 1
        self._plans[self._epochs] = self.world.plans[members]
        self._tell(PlanFound(self._epochs, members, self.world.plans[members]))
        if self._epochs not in self.requester.epochs:
            self._plans.pop(self._epochs, None)

    def _use(self, plan: ExecutionPlan, members: Members) -> None:
        """The application's own decision: used once it is ready, and the one before is left."""
        self._epochs += 1
        number, before = self._epochs, self.requester.current
        self._plans[number] = plan
        self._tell(PlanFound(number, members, plan, asked=False))
        if number not in self.requester.epochs:
            self._plans.pop(number, None)
            return

        def try_to_use() -> None:
            if number not in self.requester.epochs:
                return
            if not self.requester.is_ready(number):
                self.later(0.02, try_to_use)
                return
            self.note(f"epoch {number} is used")
            self._has_begun = True
            self._tell(UseEpoch(number))
            if before is not None:
                self._tell(LeaveEpoch(before))

        try_to_use()

    def _submit_more(self) -> None:
        while self._submitted < self._frames and len(self.requester.frames) < self._in_flight:
            frame, self._submitted = self._submitted, self._submitted + 1
            self._tell(FrameSubmitted(frame))

    def _deliver(self, epoch: int, frame: int) -> None:
        if frame in self.answered or frame in self._dropped:
            self.violation(f"frame {frame} is answered again")
        have = self._received.pop((epoch, frame), set())
        for result in self._plans[epoch].results:
            for piece in result.pieces:
                if piece.transfer >= 0 and piece.transfer not in have:
                    self.violation(f"frame {frame} is answered without transfer {piece.transfer}")
        self.note(f"frame {frame} is answered by epoch {epoch}")
        self.answered.append(frame)
        self._disturbed_s = max(self._disturbed_s, self.now)
        self.later(0.0, self._submit_more)

    def _rows(self, sender: int, identity: int, epoch: int, frame: int, number: int) -> None:
        if self._identity[sender] != identity:
            return  # of a connection that was closed
        if (epoch, frame) in self._received:
            self._received[epoch, frame].add(number)
        self._tell(Under(epoch, RowsArrived(frame, number)))

    def _hear(self, sender: int, identity: int, what: str, epoch: int, about: int = -1) -> None:
        if self._identity[sender] != identity:
            return
        if what == "welcome":
            if sender not in self.requester.members:
                self.note(f"device {sender} is back")
                self._tell(DeviceBack(sender))
        elif what == "ready":
            self._tell(DeviceReady(epoch, sender))
        else:
            self.later(SETTLE_S, self._judge, epoch, sender, about)

    def _judge(self, epoch: int, by: int, about: int) -> None:
        if epoch in self.requester.epochs and {by, about} <= self.requester.members:
            self.note(f"device {by} complains of {about}")
            self._lose(about, CUT_OFF_S)

    def _lose(self, device: int, wait_s: float = 0.0) -> None:
        """The requester takes a peer for lost, and knocks again later."""
        self.note(f"device {device} is lost")
        self._hang_up(device)
        self._tell(DeviceLost(device))
        self.later(wait_s + self.draw(KNOCK_S), self._knock, device)

    def _hang_up(self, device: int) -> None:
        self._identities += 1
        self._identity[device] = self._identities

    def _knock(self, device: int) -> None:
        if device in self.requester.members:
            return
        self._hang_up(device)
        self._say(device, "join", self._identity[device])
        self.later(0.5 + self.draw(KNOCK_S), self._knock, device)

    # ------------------------------------------------------------------ messages

    def _say(self, device: int, what: str, *arguments: Any) -> None:
        """The requester says something to a peer; in order."""
        args = (device, self.peers[device].life, self._identity[device], what, arguments)
        self._post(REQUESTER, device, self._arrive, *args)

    def _arrive(self, device: int, life: int, identity: int, what: str, arguments: tuple[Any, ...]) -> None:
        peer = self.peers[device]
        if not peer.is_alive or peer.life != life:
            return
        if self._held_up(REQUESTER, device, self._arrive, device, life, identity, what, arguments):
            return
        if what == "join":
            if identity == self._identity[device]:
                peer.join(identity)
                self.tell_requester(peer, "welcome", -1)
        elif peer.identity == identity:
            getattr(peer, what)(*arguments)

    def tell_requester(self, peer: FaultyPeer, what: str, epoch: int, about: int = -1) -> None:
        """A peer says something to the requester, in order; to one that has hung up, it ends the session."""
        if peer.identity != self._identity[peer.device] and self.rng.random() < 0.5:
            peer.forget()
            return
        self._post(peer.device, REQUESTER, self._hear, peer.device, peer.identity, what, epoch, about)

    def send_rows(self, source: int, target: int, epoch: int, frame: int, number: int) -> None:
        """Rows, in any order, and sometimes twice."""
        for _ in range(2 if self.rng.random() < 0.03 else 1):
            delay = self.draw(DELAY_S) * self._slowness(source, target)
            if target == REQUESTER:
                identity = self.peers[source].identity
                self.later(delay, self._rows_to_requester, source, identity, epoch, frame, number)
            else:
                link = self._broken.get((source, target), 0)
                identity = self._identity[target] if source == REQUESTER else link
                args = (source, target, self.peers[target].life, identity, epoch, frame, number)
                self.later(delay, self._rows_to_peer, *args)

    def _rows_to_requester(self, source: int, identity: int, epoch: int, frame: int, number: int) -> None:
        if self._held_up(
            source, REQUESTER, self._rows_to_requester, source, identity, epoch, frame, number, sender=True
        ):
            return
        self._rows(source, identity, epoch, frame, number)

    def _rows_to_peer(
        self, source: int, target: int, life: int, link: int, epoch: int, frame: int, number: int
    ) -> None:
        peer = self.peers[target]
        if not peer.is_alive or peer.life != life:
            return
        args = (source, target, life, link, epoch, frame, number)
        if self._held_up(source, target, self._rows_to_peer, *args):
            return
        if source != REQUESTER and self._broken.get((source, target), 0) != link:
            return
        peer.rows(source, epoch, frame, number)

    def answer_unknown(self, peer: FaultyPeer, sender: int, epoch: int) -> None:
        """A peer knows nothing of an epoch, and says so to who sent rows of it."""
        if sender == REQUESTER:
            return

        def complain(memory: int) -> None:
            neighbour = self.peers[sender]
            if neighbour.is_alive and neighbour.memory == memory and epoch in neighbour.book.plans:
                self.tell_requester(neighbour, "complaint", epoch, peer.device)

        self._post(peer.device, sender, complain, self.peers[sender].memory)

    def _post(self, source: int, target: int, what: Callable[..., None], *arguments: Any) -> None:
        """A message that keeps its place in its connection."""
        due = max(
            self._fifo.get((source, target), 0.0),
            self.now + self.draw(DELAY_S) * self._slowness(source, target),
        )
        self._fifo[source, target] = due
        self.later(due - self.now, what, *arguments)

    def _held_up(
        self, source: int, target: int, what: Callable[..., None], *arguments: Any, sender: bool = False
    ) -> bool:
        """Whether a message cannot arrive now, as the link is cut or the receiver hangs: it comes later."""
        until = self._cut_until.get(frozenset((source, target)), 0.0)
        who = source if sender else target
        until = max(until, self.peers[who].hung_until if not sender else 0.0)
        if until <= self.now:
            return False
        self._order += 1
        heappush(self._heap, (until, self._order, what, arguments))
        return True

    def _slowness(self, source: int, target: int) -> float:
        factor, until = self._slowed.get(frozenset((source, target)), (1.0, 0.0))
        return factor if self.now < until else 1.0

    # ------------------------------------------------------------------ faults

    def _strike(self, fault: Fault) -> None:
        self.note(f"fault: {fault}")
        if fault.seconds != float("inf"):
            self._disturbed_s = max(self._disturbed_s, self.now + fault.seconds)
        getattr(self, f"_{fault.kind}")(fault)

    def _crash(self, fault: Fault) -> None:
        peer = self.peers[fault.device]
        if not peer.is_alive:
            return
        peer.is_alive = False
        peer.life += 1
        peer.hung_until = 0.0
        peer.forget()
        self._notice(fault.device, SILENCE_S if fault.quiet else 0.05)
        if fault.seconds != float("inf"):
            self.later(fault.seconds, self._restart, fault.device)

    def _restart(self, device: int) -> None:
        self.note(f"device {device} starts again")
        self.peers[device].is_alive = True

    def _hang(self, fault: Fault) -> None:
        peer = self.peers[fault.device]
        peer.hung_until = max(peer.hung_until, self.now + fault.seconds)
        if fault.seconds > SILENCE_S:
            self._notice(fault.device, SILENCE_S)

    def _cut(self, fault: Fault) -> None:
        pair = frozenset((fault.device, fault.other))
        self._cut_until[pair] = max(self._cut_until.get(pair, 0.0), self.now + fault.seconds)
        if fault.seconds <= SILENCE_S and fault.quiet:
            return  # too short to be noticed: what was on its way comes later
        after = SILENCE_S if fault.quiet else 0.01
        if fault.other == REQUESTER:
            self.later(self.draw(after), self._requester_notices, fault.device, self._identity[fault.device])
        else:
            self.later(self.draw(after), self._neighbour_notices, fault.device, fault.other)
            self.later(self.draw(after), self._neighbour_notices, fault.other, fault.device)

    def _slow(self, fault: Fault) -> None:
        pair = frozenset((fault.device, fault.other))
        self._slowed[pair] = (20.0, self.now + fault.seconds)

    def _switch(self, fault: Fault) -> None:
        members = self.requester.members
        if len(members) == self.world.devices:
            self._use(self.world.other, members)

    def _drop(self, fault: Fault) -> None:
        frames = self.requester.frames
        if frames:
            frame = frames[fault.after % len(frames)]
            self._dropped.add(frame)
            self._tell(FrameDropped(frame))
            self.later(0.0, self._submit_more)

    def _notice(self, device: int, after_s: float) -> None:
        """The requester and the neighbours find out that a peer is gone."""
        self.later(self.draw(after_s), self._requester_notices, device, self._identity[device])
        for other in range(self.world.devices):
            if other != device:
                self.later(self.draw(after_s), self._neighbour_notices, other, device)

    def _requester_notices(self, device: int, identity: int) -> None:
        if self._identity[device] == identity and device in self.requester.members:
            self._lose(device)

    def _neighbour_notices(self, device: int, other: int) -> None:
        self._broken[device, other] = self._broken.get((device, other), 0) + 1
        peer = self.peers[device]
        if peer.is_alive:
            peer.lose_neighbour(other)
