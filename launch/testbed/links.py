"""Namespaces, the bridge that joins them, and the rates of their links.

The access point is a bridge in a namespace of its own. Each host has a namespace with one end of a veth
pair, `eth0`; the other end is a port of the bridge. The requester's end is in the machine's own namespace,
so that an ordinary shell reaches the hosts. A token bucket on `eth0` is the uplink's rate, one on the
bridge's port the downlink's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from distredge.errors import TestbedError
from launch.testbed.config import TestbedConfig
from launch.testbed.system import call

PREFIX = "de-"
_MTU_BYTES = 1514
_SMALLEST_QUEUE_BYTES = 256_000
_BURST_S = 0.001
_SEGMENT_BYTES, _HEADROOM_BYTES, _LARGEST_PACKET = 1448, 400, 65_536


@dataclass(frozen=True, slots=True)
class Names:
    """What the parts of one testbed are called: always with its name, so that a crash loses nothing."""

    testbed: str

    @property
    def own_link(self) -> str:
        """The requester's link, in the machine's own namespace (15 characters at most)."""
        return f"{PREFIX}{self.testbed}"

    @property
    def cgroup(self) -> str:
        return f"{PREFIX}{self.testbed}"

    def namespace(self, host: str) -> str:
        """Of a host; `ap` is the access point."""
        return f"{PREFIX}{self.testbed}-{host}"

    def namespaces(self) -> list[str]:
        """All that exist now, made by whichever process."""
        return [name for name in all_namespaces() if name.startswith(f"{PREFIX}{self.testbed}-")]


def all_namespaces() -> list[str]:
    """Names of every testbed's namespaces."""
    listed = json.loads(call("ip", "-j", "netns", "list") or "[]")
    return sorted(entry["name"] for entry in listed if entry["name"].startswith(PREFIX))


def port_name(config: TestbedConfig, host: str) -> str:
    """The bridge's port for a host or the requester."""
    return "rq" if host == "requester" else f"h{[h.name for h in config.hosts].index(host)}"


def create_access_point(config: TestbedConfig) -> None:
    """Makes the bridge and the requester's link.

    Raises:
        TestbedError: the subnet is in use on this machine.
    """
    names = Names(config.name)
    _refuse_taken_subnet(config)
    ap = names.namespace("ap")
    call("ip", "netns", "add", ap)
    call("ip", "-n", ap, "link", "set", "lo", "up")
    call("ip", "-n", ap, "link", "add", "br0", "type", "bridge", "stp_state", 0, "forward_delay", 0)
    call("ip", "-n", ap, "link", "set", "br0", "addrgenmode", "none", "up")
    connect(config, "requester")


def create_namespace(config: TestbedConfig, host: str) -> None:
    """Makes a host's namespace."""
    namespace = Names(config.name).namespace(host)
    call("ip", "netns", "add", namespace)
    call("ip", "-n", namespace, "link", "set", "lo", "up")


def connect(config: TestbedConfig, host: str, *, relayed: bool = False) -> None:
    """Gives a host, or the requester, its link; `relayed` if the two ends exist already."""
    names = Names(config.name)
    ap, port = names.namespace("ap"), port_name(config, host)
    mine = host == "requester"
    end, place = (names.own_link, ()) if mine else ("eth0", ("-n", names.namespace(host)))
    if not relayed:
        call("ip", *place, "link", "add", end, "type", "veth", "peer", "name", port, "netns", ap)
    call("ip", "-n", ap, "link", "set", port, "master", "br0", "addrgenmode", "none", "up")
    call("ip", *place, "link", "set", end, "addrgenmode", "none", "up")
    mask = config.subnet.prefixlen
    call("ip", *place, "addr", "add", f"{config.address(host)}/{mask}", "dev", end, "noprefixroute")
    call("ip", *place, "route", "add", config.subnet, "dev", end, "src", config.address(host),
         "congctl", config.congestion)  # fmt: skip


def set_uplink(config: TestbedConfig, host: str, mbps: float | None) -> None:
    """Changes the rate from a host to the access point; None for no limit."""
    names = Names(config.name)
    place = ("dev", names.own_link) if host == "requester" else ("dev", "eth0")
    inside = () if host == "requester" else ("-n", names.namespace(host))
    _set_rate(inside, place, mbps, config.queue_ms)


def set_downlink(config: TestbedConfig, host: str, mbps: float | None) -> None:
    """Changes the rate from the access point to a host; None for no limit."""
    inside = ("-n", Names(config.name).namespace("ap"))
    _set_rate(inside, ("dev", port_name(config, host)), mbps, config.queue_ms)


def _set_rate(inside: tuple[str, ...], device: tuple[str, str], mbps: float | None, queue_ms: float) -> None:
    if mbps is None:
        call("tc", *inside, "qdisc", "del", *device, "root", accept=("handle of zero", "No such file"))
        return
    burst, limit = bucket(mbps, queue_ms)
    # change keeps the packets that wait in an existing bucket; replace makes the first
    call("tc", *inside, "qdisc", "replace", *device, "root", "handle", "1:", "tbf",
         "rate", f"{round(mbps * 1e6)}bit", "burst", burst, "limit", limit)  # fmt: skip


def bucket(mbps: float, queue_ms: float) -> tuple[int, int]:
    """Burst and limit of the token bucket, in bytes.

    A burst is what passes at once after a pause: 1 ms of the rate (less loses rate when the processor is
    late), two packets at least. The limit is the queue: 50 ms and 256 kB at least, as in a small switch;
    shorter ones drop packets of single transfers, and one lost at a transfer's end costs TCP 200 ms.
    """
    rate = mbps * 1e6 / 8
    burst = max(2 * _MTU_BYTES, round(rate * _BURST_S))
    return burst, burst + max(_SMALLEST_QUEUE_BYTES, round(rate * queue_ms / 1e3))


def limit_packets(config: TestbedConfig) -> None:
    """Lets TCP hand over packets as large as every bucket lets pass in one piece.

    Larger ones are taken apart into single packets of 1,500 bytes, each of which wakes its receiver: at
    50 Mbit/s, reading 1 MB costs a host 9 ms of CPU time instead of 5. Real network cards join packets, too.
    """
    hosts = (config.requester, *config.hosts)
    rates = [rate for host in hosts for rate in (host.uplink_mbps, host.downlink_mbps) if rate is not None]
    size = packet_bytes(min(rates, default=None), config.queue_ms)
    for host in hosts:
        own = host.name == "requester"
        inside = () if own else ("-n", Names(config.name).namespace(host.name))
        end = Names(config.name).own_link if own else "eth0"
        call("ip", *inside, "link", "set", end, "gso_max_size", size)


def packet_bytes(mbps: float | None, queue_ms: float) -> int:
    """`gso_max_size` for links of which the slowest has this rate; None: none has a limit."""
    if mbps is None:
        return _LARGEST_PACKET
    segments = bucket(mbps, queue_ms)[0] // _MTU_BYTES
    return min(_LARGEST_PACKET, segments * _SEGMENT_BYTES + _HEADROOM_BYTES)


def remove_links(names: Names) -> None:
    """Removes the requester's link and all namespaces of a testbed; missing ones are fine."""
    call("ip", "link", "del", names.own_link, accept=("Cannot find device",))
    for namespace in names.namespaces():
        call("ip", "netns", "del", namespace, accept=("No such file",))


def processes(names: Names) -> list[int]:
    """Ids of the processes that are in one of the testbed's network namespaces."""
    found: set[int] = set()
    for namespace in names.namespaces():
        found |= {int(pid) for pid in call("ip", "netns", "pids", namespace, accept=("No such",)).split()}
    return sorted(found)


def _refuse_taken_subnet(config: TestbedConfig) -> None:
    for route in json.loads(call("ip", "-j", "-4", "route", "show") or "[]"):
        if route["dst"] == "default":
            continue
        if config.subnet.overlaps(type(config.subnet)(route["dst"], strict=False)):
            user = f"{route['dst']} on {route['dev']}"
            raise TestbedError(f"{config.subnet} is already in use here ({user}); give another in [testbed]")
