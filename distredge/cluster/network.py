"""What connects the devices: each has one link to an access point, with a rate in either direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, isfinite

import numpy as np
from numpy.typing import NDArray

from distredge.cluster.hosts import Cluster, Provider, Requester
from distredge.errors import HostsError

REQUESTER = -1
"""The requester's number, as in an ExecutionPlan; in `Network.seconds_per_byte` it finds the last row."""


@dataclass(frozen=True, slots=True)
class Link:
    """One device's connection to the access point.

    Attributes:
        uplink_mbps: from the device, in 10^6 bits a second; infinity for no limit.
        downlink_mbps: to the device.
        latency_s: one way.
        fixed_s: what a message costs at this end, whatever its size.
        send_s_per_byte, receive_s_per_byte: by how much each byte that leaves, or comes, delays what the
            device computes meanwhile.
    """

    uplink_mbps: float = inf
    downlink_mbps: float = inf
    latency_s: float = 0.0
    fixed_s: float = 0.0
    send_s_per_byte: float = 0.0
    receive_s_per_byte: float = 0.0

    def __post_init__(self) -> None:
        for name in ("uplink_mbps", "downlink_mbps"):
            if not getattr(self, name) > 0:
                raise HostsError(f"a link's {name} is {getattr(self, name)}; it must be above 0")
        for name in ("latency_s", "fixed_s", "send_s_per_byte", "receive_s_per_byte"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise HostsError(f"a link's {name} is {value}; it must be finite and at least 0")


@dataclass(frozen=True)
class Network:
    """All links. Device numbers are those of `Cluster.devices`; the requester is REQUESTER.

    Attributes:
        links: one per device.
        requester: the requester's own.
        access_point_mbps: what the access point carries in all; infinity for no limit.
    """

    links: tuple[Link, ...]
    requester: Link = Link()
    access_point_mbps: float = inf

    @classmethod
    def of(cls, cluster: Cluster) -> Network:
        """The network that a hosts file states. Slots of one host get a link each."""
        total = cluster.access_point_mbps
        return cls(
            tuple(_link(device) for device in cluster.devices),
            _link(cluster.requester),
            inf if total is None else total,
        )

    def filled(self, assumed: Link) -> Network:
        """This network, with what is assumed of a link wherever it states nothing."""
        links = tuple(_filled(link, assumed) for link in self.links)
        return replace(self, links=links, requester=_filled(self.requester, assumed))

    def of_members(self, members: Sequence[int]) -> Network:
        """The same network with these devices only, in this order."""
        return replace(self, links=tuple(self.links[device] for device in members))

    def link(self, device: int) -> Link:
        """The link of a device, or of REQUESTER."""
        return self.requester if device == REQUESTER else self.links[device]

    def rate_mbps(self, source: int, target: int) -> float:
        """The smallest of the source's uplink, the target's downlink and the access point's total."""
        if source == target:
            return inf
        return min(self.link(source).uplink_mbps, self.link(target).downlink_mbps, self.access_point_mbps)

    def overhead_s(self, source: int, target: int) -> float:
        """What one message costs before its first byte counts: both ends' latency and fixed cost."""
        if source == target:
            return 0.0
        a, b = self.link(source), self.link(target)
        return a.latency_s + b.latency_s + a.fixed_s + b.fixed_s

    def transfer_s(self, source: int, target: int, bytes: float) -> float:  # noqa: A002
        """Seconds for one message that nothing else competes with; 0 from a device to itself."""
        return self.overhead_s(source, target) + bytes * 8 / (self.rate_mbps(source, target) * 1e6)

    @cached_property
    def seconds_per_byte(self) -> NDArray[np.float64]:
        """[source, target], each device and last the requester: so REQUESTER, -1, is an index too."""
        return np.array([[8 / (self.rate_mbps(a, b) * 1e6) for b in self._numbers] for a in self._numbers])

    @cached_property
    def overheads_s(self) -> NDArray[np.float64]:
        """`overhead_s`, indexed as `seconds_per_byte`."""
        return np.array([[self.overhead_s(a, b) for b in self._numbers] for a in self._numbers])

    @cached_property
    def costs_s_per_byte(self) -> NDArray[np.float64]:
        """`send_s_per_byte` and `receive_s_per_byte` of each device."""
        costs = [(link.send_s_per_byte, link.receive_s_per_byte) for link in self.links]
        return np.array(costs, dtype=np.float64).reshape(-1, 2)

    @property
    def _numbers(self) -> Sequence[int]:
        return [*range(len(self.links)), REQUESTER]


def _filled(stated: Link, assumed: Link) -> Link:
    return Link(
        min(stated.uplink_mbps, assumed.uplink_mbps),
        min(stated.downlink_mbps, assumed.downlink_mbps),
        stated.latency_s or assumed.latency_s,
        stated.fixed_s or assumed.fixed_s,
        stated.send_s_per_byte or assumed.send_s_per_byte,
        stated.receive_s_per_byte or assumed.receive_s_per_byte,
    )


def _link(device: Provider | Requester) -> Link:
    return Link(
        inf if device.uplink_mbps is None else device.uplink_mbps,
        inf if device.downlink_mbps is None else device.downlink_mbps,
        device.latency_ms / 1e3,
        device.fixed_ms / 1e3,
        device.send_ms_per_mb / 1e9,
        device.receive_ms_per_mb / 1e9,
    )
