"""Does a testbed keep what its file says? Links are measured with plain sockets, CPU shares with loops."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from launch.testbed.bed import Testbed
from launch.testbed.config import HostConfig

_PROBE = (sys.executable, "-I", "-S", str(Path(__file__).parent / "probe.py"))
_WITHOUT_LIMIT_MBPS = 10_000.0


@dataclass(frozen=True, slots=True)
class LinkMeasure:
    """One direction between the requester and a host.

    Attributes:
        source, target: names.
        rate_mbps: what the testbed file says.
        reached_mbps: payload of messages of about half a second each.
        small_ms: 100 bytes and the answer, on an idle link, median.
    """

    source: str
    target: str
    rate_mbps: float
    reached_mbps: float
    small_ms: float


@dataclass(frozen=True, slots=True)
class CpuMeasure:
    """A host's CPU share.

    Attributes:
        host: its name.
        share: what the testbed file says.
        reached: CPU seconds per second of a busy loop.
        median_ms, longest_ms: wall time of equal pieces of work of 2 ms.
    """

    host: str
    share: float
    reached: float
    median_ms: float
    longest_ms: float


def measure_link(bed: Testbed, source: str, target: str) -> LinkMeasure:
    """Measures one direction; the testbed must be up."""
    rate = _rate(bed, source, target)
    big = round(min(rate, _WITHOUT_LIMIT_MBPS) * 1e6 / 8 * 0.5)
    with _server(bed, target) as port:
        address = bed.config.address(target)
        small = _send(bed, source, address, port, 100, 30)
        seconds = _send(bed, source, address, port, big, 3)
    reached = big * 8 / 1e6 / statistics.median(seconds)
    return LinkMeasure(source, target, rate, reached, statistics.median(small[5:]) * 1e3)


def measure_cpu(bed: Testbed, host: HostConfig, seconds: int = 1) -> CpuMeasure:
    """Measures one host's share of CPU time; the testbed must be up."""
    process = bed.run(host.name, [*_PROBE, "spin", str(seconds)], stdout=subprocess.PIPE, text=True)
    printed, _ = process.communicate(timeout=60)
    share, _, median, longest = (float(word) for word in printed.split())
    return CpuMeasure(host.name, host.cpu or 1.0, share, median * 1e3, longest * 1e3)


def report(bed: Testbed) -> Iterator[str]:
    """A Markdown table of everything, line by line as it is measured."""
    yield "| from | to | rate, Mbit/s | reached | share | 100 bytes and back, ms |"
    yield "|---|---|---|---|---|---|"
    for host in bed.config.hosts:
        for ends in (("requester", host.name), (host.name, "requester")):
            link = measure_link(bed, *ends)
            yield (
                f"| {link.source} | {link.target} | {link.rate_mbps:g} | {link.reached_mbps:.1f} "
                f"| {link.reached_mbps / link.rate_mbps:.1%} | {link.small_ms:.2f} |"
            )
    yield ""
    yield "| host | CPU share | reached | 2 ms of work take, median, ms | longest |"
    yield "|---|---|---|---|---|"
    for host in bed.config.hosts:
        cpu = measure_cpu(bed, host)
        times = f"{cpu.median_ms:.1f} | {cpu.longest_ms:.1f}"
        yield f"| {cpu.host} | {cpu.share:g} | {cpu.reached:.3f} | {times} |"


def _rate(bed: Testbed, source: str, target: str) -> float:
    hosts = {host.name: host for host in (bed.config.requester, *bed.config.hosts)}
    up, down = hosts[source].uplink_mbps, hosts[target].downlink_mbps
    return min(rate for rate in (up, down, _WITHOUT_LIMIT_MBPS) if rate is not None)


@contextmanager
def _server(bed: Testbed, host: str) -> Iterator[int]:
    argv = [*_PROBE, "serve", bed.config.address(host)]
    with bed.run(host, argv, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.kill()


def _send(bed: Testbed, host: str, address: str, port: int, size: int, count: int) -> list[float]:
    argv = [*_PROBE, "send", address, str(port), str(size), str(count)]
    process = bed.run(host, argv, stdout=subprocess.PIPE, text=True)
    printed, _ = process.communicate(timeout=120)
    return [float(line) for line in printed.split()]
