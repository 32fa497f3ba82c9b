"""The network on a virtual clock: connections share links fairly; see docs/design/transfer-semantics.md."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Generic, TypeVar

from distredge.cluster.network import Network
from distredge.plan.execution import REQUESTER

FASTEST = 1e18
"""Bytes a second that stand for a link without a limit."""

Connection = tuple[int, int]
T = TypeVar("T", bound=Hashable)


def link_rates(network: Network) -> tuple[list[float], list[float], float]:
    """Bytes a second of each uplink and downlink, the requester's last, and of the access point."""
    ends = [*range(len(network.links)), REQUESTER]
    up = [min(FASTEST, network.link(i).uplink_mbps * 125_000) for i in ends]
    down = [min(FASTEST, network.link(i).downlink_mbps * 125_000) for i in ends]
    return up, down, min(FASTEST, network.access_point_mbps * 125_000)


def fair_rates(
    flows: Sequence[Connection], up: Sequence[float], down: Sequence[float], total: float
) -> list[float]:
    """Max-min fair rates: no flow can have more without taking from one that has no more than it.

    Args:
        flows: (source, target) of each; the requester, -1, finds the last link.
        up, down: bytes a second of each uplink and downlink.
        total: bytes a second that all flows share.
    """
    left: dict[tuple[str, int], float] = {("total", 0): total}
    on: dict[tuple[str, int], list[int]] = {("total", 0): list(range(len(flows)))}
    for flow, (source, target) in enumerate(flows):
        for link, rate in ((("up", source), up[source]), (("down", target), down[target])):
            left[link] = rate
            on.setdefault(link, []).append(flow)
    rates = [0.0] * len(flows)
    open_flows = set(range(len(flows)))
    while open_flows:
        counts = {link: sum(f in open_flows for f in members) for link, members in on.items()}
        tightest = min((link for link in on if counts[link]), key=lambda link: left[link] / counts[link])
        share = max(0.0, left[tightest] / counts[tightest])
        for flow in on[tightest]:
            if flow in open_flows:
                open_flows.remove(flow)
                rates[flow] = share
                for link in (("up", flows[flow][0]), ("down", flows[flow][1]), ("total", 0)):
                    left[link] -= share
    return rates


@dataclass(slots=True)
class _Flow(Generic[T]):
    """One connection that has something to send: the message under way and those behind it."""

    connection: Connection
    left: float
    message: T
    since: float
    started: float
    rate: float = 0.0
    behind: deque[tuple[float, T]] = field(default_factory=deque)

    @property
    def end(self) -> float:
        return self.since + self.left / self.rate


@dataclass(frozen=True, slots=True)
class Sent(Generic[T]):
    """A message whose last byte has left: when its first and its last byte did, in seconds."""

    message: T
    start_s: float
    end_s: float


class FluidNetwork(Generic[T]):
    """What is under way between peers.

    A connection, an ordered pair of peers, sends its messages one behind the other. All connections with
    something to send share the links max-min fairly.
    """

    def __init__(self, network: Network) -> None:
        self._up, self._down, self._total = link_rates(network)
        self._flows: dict[Connection, _Flow[T]] = {}
        self._stale = False

    def send(self, now: float, connection: Connection, size: float, message: T) -> None:
        """Queues a message of so many bytes."""
        flow = self._flows.get(connection)
        if flow is not None:
            flow.behind.append((size, message))
            return
        self._flows[connection] = _Flow(connection, size, message, now, now)
        self._stale = True

    def drop(self, peer: int) -> None:
        """Forgets everything under way from or to a peer."""
        self._flows = {pair: flow for pair, flow in self._flows.items() if peer not in pair}
        self._stale = True

    def next_end(self, now: float) -> float:
        """When the next message's last byte leaves; infinity if none is under way."""
        if self._stale:
            self._share(now)
        return min((flow.end for flow in self._flows.values()), default=inf)

    def rates(self, peer: int) -> tuple[float, float]:
        """Bytes a second that leave a peer, and that come to it, as of the last `next_end`."""
        leave = sum(flow.rate for (source, _), flow in self._flows.items() if source == peer)
        come = sum(flow.rate for (_, target), flow in self._flows.items() if target == peer)
        return leave, come

    def finish(self, now: float) -> list[Sent[T]]:
        """The messages whose last byte leaves now."""
        ended = [flow for flow in self._flows.values() if flow.end <= now]
        found = []
        for flow in ended:
            found.append(Sent(flow.message, flow.started, now))
            if flow.behind:
                flow.left, flow.message = flow.behind.popleft()
                flow.since = flow.started = now
            else:
                del self._flows[flow.connection]
                self._stale = True
        return found

    def _share(self, now: float) -> None:
        flows = list(self._flows.values())
        rates = fair_rates([flow.connection for flow in flows], self._up, self._down, self._total)
        for flow, rate in zip(flows, rates, strict=True):
            if rate != flow.rate:
                flow.left = max(0.0, flow.left - flow.rate * (now - flow.since))
                flow.since, flow.rate = now, rate
        self._stale = False
