"""What a peer keeps for one requester's session."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import zmq

from distredge import __version__
from distredge.protocol.epochs import EpochBook
from distredge.protocol.messages import Buffer, Hello
from distredge.runtime.hosted import HostedPlan
from distredge.runtime.keys import KeyPair
from distredge.runtime.link import WAITING_BYTES, Link
from distredge.runtime.tally import TallyReport
from distredge.runtime.trace import TraceEvent
from distredge.runtime.transport import send, size_of

TRACE_LIMIT = 10_000
"""Measured events kept for a requester that never asks for them."""


class Tenant:
    """A session: who its requester is, its plans, and the connections to neighbours made for it.

    Args:
        session: its number.
        identity: of the requester's connection.
    """

    def __init__(self, session: int, identity: bytes) -> None:
        self.session = session
        self.identity = identity
        self.token: int | None = None
        """Whoever knows it may speak for the session over another connection."""
        self.heard_s = time.monotonic()
        self.epochs: EpochBook[HostedPlan] = EpochBook()
        self.links: dict[str, Link] = {}
        self.queued_bytes = 0
        """Of blobs and plans that the preparing thread has not come to yet."""
        self.trace: deque[TraceEvent] = deque(maxlen=TRACE_LIMIT)
        self._waiting: deque[tuple[bytes, Buffer | None]] = deque()
        self._waiting_bytes = 0

    def prepared(self, size: int) -> None:
        """The preparing thread has come to so many bytes."""
        self.queued_bytes -= size

    @property
    def plans(self) -> dict[int, HostedPlan]:
        """By epoch."""
        return self.epochs.plans

    def tallies(self) -> list[object]:
        """What its plans' parts and transfers took since the last question: `TallyReport`s in plain form."""
        found: list[object] = []
        for epoch, plan in self.plans.items():
            runs, arrivals = plan.tally.take()
            if runs or arrivals:
                found.append([epoch, runs, arrivals])
        return found

    def hear(self, reports: Iterable[TallyReport]) -> None:
        """Takes what its requester says that transfers take."""
        for report in reports:
            plan = self.plans.get(report.epoch)
            if plan is not None and plan.is_built:
                for transfer, seconds in report.arrivals:
                    plan.outgoing.arrived(transfer, seconds)

    @property
    def is_waiting(self) -> bool:
        """Whether messages wait for room in the requester's or a neighbour's queue."""
        return bool(self._waiting) or any(link.is_waiting for link in self.links.values())

    def send(self, router: zmq.Socket[bytes], header: bytes, payload: Buffer | None = None) -> None:
        """To the requester: now, or as soon as the connection's queue has room.

        Raises:
            zmq.ZMQError: EHOSTUNREACH: the requester has gone; EAGAIN: it takes nothing, and too much waits.
        """
        if not self._waiting:
            try:
                send(router, header, payload, to=self.identity)
                return
            except zmq.Again:
                pass
        self._waiting_bytes += size_of(payload)
        if self._waiting_bytes > WAITING_BYTES:
            raise zmq.Again
        self._waiting.append((header, payload))

    def flush(self, router: zmq.Socket[bytes]) -> None:
        """Sends what waits, if there is room now. Raises as `send`."""
        while self._waiting:
            header, payload = self._waiting[0]
            try:
                send(router, header, payload, to=self.identity)
            except zmq.Again:
                break
            self._waiting.popleft()
            self._waiting_bytes -= size_of(payload)
        for link in self.links.values():
            link.flush()

    def connect(
        self,
        context: zmq.Context[Any],
        name: str,
        address: str,
        own_name: str,
        own: KeyPair | None,
        peer_key: str,
    ) -> Link:
        """A connection to a neighbour, made at its first use."""
        link = self.links.get(address)
        if link is None:
            link = self.links[address] = Link(context, name, address, own, peer_key)
            link.send_message(Hello(self.session, own_name, __version__))
        return link

    def cut(self, address: str) -> list[HostedPlan]:
        """Closes the connection to a neighbour; returns the plans that cannot go on without it."""
        self.links.pop(address).close()
        ended = [plan for plan in self.plans.values() if not plan.is_over and plan.sends_to(address)]
        for plan in ended:
            plan.is_over = True
        return ended

    def unused_links(self) -> list[Link]:
        """Connections that no plan needs any more."""
        plans = [plan for plan in self.plans.values() if not plan.is_over]
        return [link for at, link in self.links.items() if not any(plan.sends_to(at) for plan in plans)]

    def close(self) -> None:
        """Forgets everything."""
        for plan in self.plans.values():
            plan.is_over = True
        self.plans.clear()
        for link in self.links.values():
            link.close()
        self.links.clear()
