"""testbed.ini: the hosts to make. Read as strictly as hosts.ini."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from distredge.cluster.ini import Section, clip, read_ini

_TESTBED_KEYS = ("name", "subnet", "queue_ms", "congestion", "hide", "ssh", "steady")
_REQUESTER_KEYS = ("link_mbps", "uplink_mbps", "downlink_mbps")
_HOST_KEYS = ("cpu", *_REQUESTER_KEYS, "delay_ms", "jitter_ms", "disk_mb", "memory_mb", "threads")
_TESTBED_NAME = re.compile(r"[a-z0-9]{1,8}")
_HOST_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_RESERVED = ("requester", "ap")
_LARGEST_MBPS = 30_000  # above, tc counts the burst in more bytes than it holds

Subnet = ipaddress.IPv4Network
_SUBNET = Subnet("10.77.0.0/24")


@dataclass(frozen=True, slots=True)
class HostConfig:
    """One host.

    Attributes:
        name: of the host.
        cpu: cores' worth of CPU time; None for no limit.
        uplink_mbps, downlink_mbps: rate of the link on the wire, in 10^6 bits a second; None for no limit.
        delay_ms, jitter_ms: added to each packet in each direction: the mean, and how far it strays.
        disk_mb: size of the home folder; None for that of the machine.
        memory_mb, threads: only written into hosts.ini.
    """

    name: str
    cpu: float | None = None
    uplink_mbps: float | None = None
    downlink_mbps: float | None = None
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    disk_mb: int | None = None
    memory_mb: int | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class TestbedConfig:
    """All hosts and what joins them.

    Attributes:
        name: tells testbeds on one machine apart; part of every namespace's, cgroup's and link's name.
        hosts: in the file's order.
        requester: this machine itself, as seen by the hosts; only its link counts.
        subnet: addresses; .1 is the requester, .11, .12, ... are the hosts.
        queue_ms: how long a full queue in front of a link is.
        congestion: TCP's congestion control on these links.
        hide: folders of this machine that the hosts see empty.
        ssh: whether the hosts run an SSH server.
        steady: whether hosts get their share of CPU time at once whatever else this machine does.
    """

    __test__ = False

    name: str
    hosts: tuple[HostConfig, ...]
    requester: HostConfig = HostConfig("requester")
    subnet: Subnet = _SUBNET
    queue_ms: float = 50.0
    congestion: str = "cubic"
    hide: tuple[str, ...] = ()
    ssh: bool = True
    steady: bool = False

    def address(self, host: str) -> str:
        """The IPv4 address of a host, or of `requester`."""
        if host == "requester":
            return str(self.subnet[1])
        return str(self.subnet[11 + [h.name for h in self.hosts].index(host)])


def load_testbed(path: str | Path) -> TestbedConfig:
    """Reads a testbed file.

    Raises:
        HostsError: one line, `file:line: [section] key: what is wrong; what to do`.
    """
    sections = read_ini(path)
    settings: dict[str, object] = {"name": _default_name(path)}
    hosts: list[HostConfig] = []
    for section in sections:
        if section.name == "testbed":
            section.allow(_TESTBED_KEYS)
            settings |= _testbed(section)
        elif section.name == "requester":
            section.allow(_REQUESTER_KEYS)
            settings["requester"] = HostConfig("requester", None, *_rates(section))
        elif section.name.startswith("host:"):
            section.allow(_HOST_KEYS)
            hosts.append(_host(section))
        else:
            section.fail("", "unknown section; a testbed file has [testbed], [requester] and [host:NAME]")
    config = TestbedConfig(hosts=tuple(hosts), **settings)  # type: ignore[arg-type]
    last = sections[-1] if sections else Section(str(path), "testbed", 1, {}, {})
    if not hosts:
        last.fail("", "the file describes no host; add a section [host:NAME]")
    if len(hosts) + 12 > config.subnet.num_addresses:
        last.fail(
            "", f"{len(hosts)} hosts do not fit into {config.subnet}; give a larger subnet in [testbed]"
        )
    return config


def _default_name(path: str | Path) -> str:
    return re.sub(r"[^a-z0-9]", "", Path(path).stem.lower())[:8] or "testbed"


def _testbed(section: Section) -> dict[str, object]:
    name, subnet = section.text("name"), section.text("subnet")
    if name is not None and not _TESTBED_NAME.fullmatch(name):
        section.fail("name", f"{clip(name)} is no testbed's name; use up to 8 small letters and digits")
    congestion = section.text("congestion")
    if congestion is not None and not re.fullmatch(r"[a-z0-9_]{1,15}", congestion):
        section.fail("congestion", f"{clip(congestion)} is no congestion control; write cubic, reno or bbr")
    hidden = section.text("hide")
    folders = tuple(item.strip() for item in hidden.split(",")) if hidden else None
    for folder in folders or ():
        if not folder.startswith("/") or folder == "/":
            section.fail("hide", f"{clip(folder)} is not the absolute path of a folder; correct it")
    found = {
        "name": name,
        "subnet": None if subnet is None else _subnet(section, subnet),
        "queue_ms": section.number("queue_ms", "milliseconds"),
        "congestion": congestion,
        "hide": folders,
        "ssh": _switch(section, "ssh"),
        "steady": _switch(section, "steady"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _switch(section: Section, key: str) -> bool | None:
    text = section.text(key)
    if text not in (None, "yes", "no"):
        section.fail(key, f"{clip(text)} is neither yes nor no; write one of them")
    return None if text is None else text == "yes"


def _subnet(section: Section, text: str) -> Subnet:
    try:
        subnet = Subnet(text)
    except ValueError:
        section.fail("subnet", f"{clip(text)} is no network; write one such as 10.77.0.0/24")
    if not subnet.is_private or subnet.is_loopback or not 16 <= subnet.prefixlen <= 27:
        section.fail("subnet", f"{clip(text)} will not do; give a private network of prefix 16 to 27")
    return subnet


def _host(section: Section) -> HostConfig:
    name = section.name.removeprefix("host:")
    if not _HOST_NAME.fullmatch(name) or name in _RESERVED:
        section.fail("", f"{clip(name)} cannot be a host's name; use up to 31 small letters, digits and '-'")
    cpu = section.number("cpu", "cores' worth of time")
    if cpu is not None and not 0.001 <= cpu <= 1024:
        section.fail("cpu", f"{cpu} is out of range; give 0.001 to 1024 cores' worth of time")
    delay = section.number("delay_ms", "milliseconds", zero=True) or 0.0
    jitter = section.number("jitter_ms", "milliseconds", zero=True) or 0.0
    if jitter > delay:
        section.fail(
            "jitter_ms", f"{jitter} is more than the delay of {delay}; no packet arrives before it left"
        )
    return HostConfig(
        name,
        cpu,
        *_rates(section),
        delay_ms=delay,
        jitter_ms=jitter,
        disk_mb=section.integer("disk_mb", 1),
        memory_mb=section.integer("memory_mb", 1),
        threads=section.integer("threads", 1, 4096),
    )


def _rates(section: Section) -> tuple[float | None, float | None]:
    """Uplink and downlink."""
    unit = "10^6 bits a second"
    both, up, down = (section.number(key, unit) for key in ("link_mbps", "uplink_mbps", "downlink_mbps"))
    if both is not None and (up is not None or down is not None):
        section.fail("link_mbps", "stands for both directions; remove it, or uplink_mbps and downlink_mbps")
    for key, rate in (("link_mbps", both), ("uplink_mbps", up), ("downlink_mbps", down)):
        if rate is not None and not 0.01 <= rate <= _LARGEST_MBPS:
            section.fail(
                key, f"{rate} is out of range; give 0.01 to {_LARGEST_MBPS}, or remove it for no limit"
            )
    return (both, both) if both is not None else (up, down)
