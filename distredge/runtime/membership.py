"""Which peers live: connections to all of them, signs of life, complaints, and bringing lost ones back."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq

from distredge import __version__
from distredge.protocol.messages import Bye, Hello, Join, Message, encode
from distredge.runtime.deployment import PeerAddress, Processes
from distredge.runtime.keys import KeyPair
from distredge.runtime.link import Link
from distredge.runtime.transport import WATCH_SILENCE_MS
from distredge.runtime.turns import Bell

SILENCE_S = 4.0
"""A peer whose interpreter answers no ping for so long is lost, even if its connections stand."""
SETTLE_S = 0.3
"""After a peer's complaint about another: time to see which one is really gone."""
LATER_S, LATEST_S = 0.5, 30.0
"""How long to wait with a peer that is lost again and again: at first, and at most."""
CUT_OFF_S, CUT_OFF_LATEST_S = 5.0, 60.0
"""The same, for one that other peers cannot reach, and for one that cannot prepare a plan."""
STEADY_S = 20.0
"""A peer that lived for so long is forgiven."""


@dataclass
class Member:
    """One peer, as the requester sees it.

    Attributes:
        link: carries everything.
        watch: carries signs of life only; see docs/design/faults.md.
        is_up: it may be used.
        reason: why it was lost.
    """

    name: str
    address: str
    link: Link
    watch: Link
    is_up: bool = False
    is_asked: bool = True
    reason: str = ""
    token: int = field(default_factory=lambda: secrets.randbits(62))
    up_s: float = 0.0
    retry_s: float = 0.0
    delay_s: float = 0.0


@dataclass
class _Complaint:
    """One peer says that it cannot work with another."""

    epoch: int
    by: int
    about: int
    text: str
    due_s: float


@dataclass(frozen=True)
class Loss:
    """A peer is lost, and why, in words that continue `peer NAME`."""

    at: int
    how: str


@dataclass
class Membership:
    """Connections to all peers. Owned by one thread at a time.

    Args:
        context: of the sockets.
        session: the session's number.
        peers: in the order of the plans' devices.
        processes: of the peers, if they are this process's children.
        own: our keys; needed for peers that have one.
    """

    context: zmq.Context[Any]
    session: int
    peers: Sequence[PeerAddress]
    processes: Processes | None = None
    own: KeyPair | None = None
    poller: zmq.Poller = field(default_factory=zmq.Poller)
    bell: Bell = field(default_factory=Bell)

    def __post_init__(self) -> None:
        self.members: list[Member] = []
        self.links: list[Link] = []
        """The members' `link`s."""
        self._by_socket: dict[Any, tuple[int, Link]] = {}
        self._complaints: list[_Complaint] = []
        self.poller.register(self.bell.socket, zmq.POLLIN)
        for at, peer in enumerate(self.peers):
            link, watch = self._open(at, peer.name, peer.address)
            self.members.append(Member(peer.name, peer.address, link, watch))
            self.links.append(link)

    @property
    def keys(self) -> tuple[str, ...]:
        """The peers' public keys."""
        return tuple(peer.key for peer in self.peers)

    @property
    def up(self) -> frozenset[int]:
        """Peers that may be used."""
        return frozenset(at for at, member in enumerate(self.members) if member.is_up)

    def _open(self, at: int, name: str, address: str) -> tuple[Link, Link]:
        key = self.peers[at].key
        link = Link(self.context, name, address, self.own, key)
        try:
            watch = Link(self.context, name, address, self.own, key, WATCH_SILENCE_MS)
        except BaseException:
            link.close()
            raise
        for each in (link, watch):
            self._by_socket[each.socket] = at, each
            self.poller.register(each.socket, zmq.POLLIN)
        return link, watch

    def _shut(self, member: Member, *, farewell: bool = False) -> None:
        for link in (member.link, member.watch):
            if not link.socket.closed:
                self.poller.unregister(link.socket)
                del self._by_socket[link.socket]
            link.close(farewell=farewell and link is member.link)

    def greet(self) -> None:
        """Says hello to all; `Welcome`s will come."""
        for member in self.members:
            self._greet(member)

    def _greet(self, member: Member) -> None:
        for link in (member.link, member.watch):
            link.send_message(Hello(self.session, "requester", __version__))
        member.link.send_message(Join(self.session, member.token))

    def close(self, *, farewell: bool) -> None:
        """Closes all connections; with `farewell`, says goodbye."""
        for member in self.members:
            polite = farewell and member.link.welcomed
            if polite:
                member.link.send_message(Bye(self.session))
            self._shut(member, farewell=polite)
        self.bell.close()

    def tell(self, devices: Sequence[int] | frozenset[int], message: Message) -> None:
        """To those of these peers that live."""
        header = encode(message)
        for at in sorted(devices):
            if self.members[at].is_up:
                self.links[at].send(header)

    def readable(self, timeout_s: float) -> list[tuple[int, Link]]:
        """Connections on which something waits, and whose."""
        ready = [socket for socket, _ in self.poller.poll(int(1000 * timeout_s))]
        found = [self._by_socket[socket] for socket in ready if socket in self._by_socket]
        if len(found) < len(ready):
            self.bell.answer()
        return found

    # ------------------------------------------------------------------ who is lost

    def find_lost(self, now: float, *, patient: frozenset[int] = frozenset()) -> Iterator[Loss]:
        """Peers that are lost since the last question, and those of which a complaint proves right.

        Args:
            now: the time.
            patient: peers that prepare a plan; their interpreter may be busy for long.
        """
        ended = {} if self.processes is None else self.processes.endings()
        for at, member in enumerate(self.members):
            if not (member.is_up or member.is_asked):
                continue
            if at in ended:
                yield Loss(at, ended[at])
            elif [link for link in (member.link, member.watch) if link.is_broken() and link.welcomed]:
                yield Loss(at, f"at {member.address} closed its connection or cannot be reached any more")
            elif member.is_up and at not in patient:
                silence_s = now - max(member.link.heard_s, member.watch.heard_s)
                if silence_s > SILENCE_S:
                    yield Loss(at, f"at {member.address} has not answered for {silence_s:.1f} s")

    def complain(self, epoch: int, by: int, about: int, text: str) -> None:
        """A peer cannot work with another; judged after a moment."""
        if not any((c.epoch, c.by, c.about) == (epoch, by, about) for c in self._complaints):
            self._complaints.append(_Complaint(epoch, by, about, text, time.monotonic() + SETTLE_S))

    def judge(self, now: float, live_epochs: Sequence[int]) -> tuple[Loss, int, str] | None:
        """Whom complaints that no death explains speak against; who complained, and how."""
        self._complaints = [
            c
            for c in self._complaints
            if c.epoch in live_epochs and self.members[c.by].is_up and self.members[c.about].is_up
        ]
        due = [c for c in self._complaints if now >= c.due_s]
        if not due:
            return None
        pairs = {(c.by, c.about) for c in self._complaints}
        votes = Counter(about for _, about in pairs)
        for by, count in Counter(by for by, _ in pairs).items():
            votes[by] += count if count > 1 else 0  # who cannot reach several is itself cut off
        worst = max(sorted(votes), key=lambda at: (votes[at], at == due[0].about))
        found = next((c for c in due if c.about == worst), due[0])
        address = self.members[worst].address
        how = f"at {address} is of no use to {self.members[found.by].name}, which {found.text}"
        return Loss(worst, how), found.by, found.text

    # ------------------------------------------------------------------ losing and bringing back

    def lose(self, loss: Loss, *, cut_off: bool = False) -> None:
        """Closes the connections to a peer. It will be asked again: at once, unless it was lost just before.

        Args:
            loss: who, and why.
            cut_off: it lives, but is of no use at the moment.
        """
        member, now = self.members[loss.at], time.monotonic()
        self._shut(member)
        steady = member.is_up and now - member.up_s > STEADY_S
        first, latest = (CUT_OFF_S, CUT_OFF_LATEST_S) if cut_off else (LATER_S, LATEST_S)
        if steady or not member.reason:
            member.delay_s = first if cut_off else 0.0
        else:
            member.delay_s = min(latest, max(first, 2 * member.delay_s))
        member.is_up = member.is_asked = False
        member.reason, member.retry_s = loss.how, now + member.delay_s

    def knock(self, now: float) -> None:
        """Opens connections to lost peers again; starts local ones that have ended."""
        for at, member in enumerate(self.members):
            if member.is_up or member.is_asked or now < member.retry_s:
                continue
            if self.processes is not None:
                address = self.processes.revive(at)
                if address is None:
                    continue
                member.address = address
            member.link, member.watch = self._open(at, member.name, member.address)
            self.links[at] = member.link
            member.is_asked = True
            self._greet(member)

    def welcomed(self, at: int) -> bool:
        """A peer has answered on one connection; whether it can be used by that."""
        member = self.members[at]
        if member.is_up or not (member.link.welcomed and member.watch.welcomed):
            return False
        member.is_up, member.is_asked, member.up_s = True, False, time.monotonic()
        member.link.heard_s = member.up_s
        return True

    def last_loss(self) -> str:
        """Who was lost, in one line."""
        lost = [f"{m.name} {m.reason}" for m in self.members if not m.is_up and m.reason]
        return "; ".join(lost) or "no peer answers"
