"""The hosts file: one format for real and for simulated clusters. docs/hosts.md explains every key."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from distredge.cluster.hosts_values import (
    DEFAULT_DEPLOY_DIR,
    DEFAULT_PORT,
    DEFAULTS_KEYS,
    ENCRYPTION,
    NETWORK_KEYS,
    PROVIDER_KEYS,
    REQUESTER_KEYS,
    read_address,
    read_encryption,
    read_keys,
    read_link,
    read_settings,
)
from distredge.cluster.ini import Section, clip, read_ini
from distredge.errors import HostsError

_SECTIONS = "[requester], [defaults], [network] and [provider:NAME]"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True)
class Requester:
    """The device that sends the images and takes the results.

    Attributes:
        address: where peers see it; None where nobody needs to know.
        uplink_mbps, downlink_mbps: rates of its link, in 10^6 bits a second; None for no limit.
        latency_ms: one way, to the access point.
        fixed_ms: what a message costs at this end, whatever its size.
        send_ms_per_mb, receive_ms_per_mb: by how much each megabyte that leaves, or comes, delays what is
            computed meanwhile.
        keys: folder of the keys for encrypted connections; None for the usual place of this hosts file.
    """

    address: str | None = None
    uplink_mbps: float | None = None
    downlink_mbps: float | None = None
    latency_ms: float = 0.0
    fixed_ms: float = 0.0
    send_ms_per_mb: float = 0.0
    receive_ms_per_mb: float = 0.0
    keys: str | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """One device that computes; with `slots` above 1, a host of several peers.

    Attributes:
        name: unique in the cluster.
        address: host name or IP address of data port and SSH; None for a simulated device.
        ports: one data port per slot.
        ssh_user, ssh_port, identity_file, known_hosts: how `fab` logs in; None leaves it to SSH's own
            configuration.
        deploy_dir: where `fab deploy` puts everything, absolute or under `~/`, on the host.
        wheels_dir: folder on the controller with wheels for this host (a Jetson's onnxruntime).
        python: the interpreter on the host; None to look for one.
        slots: peers that this host runs.
        execution_providers: onnxruntime's names, in order of preference; empty to choose by looking.
        threads: of the inference engine in each peer; None for all cores.
        memory_mb: what the peers of this host may use, in 10^6 bytes; None for no limit.
        profile: a name of the catalog, or the path of a measured profile.
        uplink_mbps, downlink_mbps, latency_ms, fixed_ms, send_ms_per_mb, receive_ms_per_mb:
            as for the requester.
        line: where it stands in the hosts file; 0 if it comes from elsewhere.
    """

    name: str
    address: str | None = None
    ports: tuple[int, ...] = (DEFAULT_PORT,)
    ssh_user: str | None = None
    ssh_port: int = 22
    identity_file: str | None = None
    known_hosts: str | None = None
    deploy_dir: str = DEFAULT_DEPLOY_DIR
    wheels_dir: str | None = None
    python: str | None = None
    slots: int = 1
    execution_providers: tuple[str, ...] = ()
    threads: int | None = None
    memory_mb: int | None = None
    profile: str | None = None
    uplink_mbps: float | None = None
    downlink_mbps: float | None = None
    latency_ms: float = 0.0
    fixed_ms: float = 0.0
    send_ms_per_mb: float = 0.0
    receive_ms_per_mb: float = 0.0
    line: int = field(default=0, compare=False)

    @property
    def port(self) -> int:
        """The first data port."""
        return self.ports[0]

    @property
    def endpoint(self) -> str | None:
        """The first data port in ZeroMQ's form, `tcp://host:port`; None for a simulated device."""
        if self.address is None:
            return None
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"tcp://{host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether the address is of the loopback network."""
        return self.address is not None and _is_loopback(self.address)

    def devices(self) -> tuple[Provider, ...]:
        """One provider with a single slot for each slot: `NAME` itself, or `NAME.0`, `NAME.1` ..."""
        if self.slots == 1:
            return (self,)
        memory = None if self.memory_mb is None else max(1, self.memory_mb // self.slots)
        return tuple(
            replace(self, name=f"{self.name}.{slot}", ports=(port,), slots=1, memory_mb=memory)
            for slot, port in enumerate(self.ports)
        )


@dataclass(frozen=True)
class Cluster:
    """A requester and its providers.

    Attributes:
        name: the hosts file's name without `.ini`, or a name of the catalog.
        requester: the device that sends images.
        providers: in the file's order.
        access_point_mbps: what the access point carries in all, in one direction; None for no limit.
        path: the hosts file, for messages; empty if there is none.
        encryption: `auto` for every connection that leaves the loopback network; or `on`, `off` for all.
    """

    name: str
    requester: Requester
    providers: tuple[Provider, ...]
    access_point_mbps: float | None = None
    path: str = field(default="", compare=False)
    encryption: str = ENCRYPTION[0]

    @cached_property
    def devices(self) -> tuple[Provider, ...]:
        """What a plan numbers 0, 1, 2 ...: each slot of each provider, in order."""
        return tuple(device for provider in self.providers for device in provider.devices())

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of `devices`."""
        return tuple(device.name for device in self.devices)

    @property
    def is_local(self) -> bool:
        """Whether every provider is on this machine's loopback network."""
        return all(provider.is_local for provider in self.providers)

    @property
    def is_simulated(self) -> bool:
        """Whether a provider has no address, so that the cluster can be planned for but not run on."""
        return any(provider.address is None for provider in self.providers)

    def device(self, name: str) -> Provider:
        """The device of that name.

        Raises:
            HostsError: there is none.
        """
        for device in self.devices:
            if device.name == name:
                return device
        known = ", ".join(self.names)
        raise HostsError(f"{self.path or self.name}: no device is called {clip(name)}; there are {known}")


def load_hosts(path: str | Path) -> Cluster:
    """Reads a hosts file and checks every line of it.

    Relative paths in it (`keys`, `identity_file`, `known_hosts`, `wheels_dir`, a measured `profile`) count
    from the file's own folder.

    Raises:
        HostsError: one line, `file:line: [section] key: what is wrong; what to do`.
    """
    sections = {section.name: section for section in read_ini(path)}
    folder = Path(path).parent
    defaults: dict[str, Any] = {}
    if "defaults" in sections:
        sections["defaults"].allow(DEFAULTS_KEYS)
        defaults = read_settings(sections["defaults"], folder)
    requester, access_point, providers = Requester(), None, []
    encryption = ENCRYPTION[0]
    for name, section in sections.items():
        if name == "requester":
            section.allow(REQUESTER_KEYS)
            requester = Requester(
                address=read_address(section)[0], keys=read_keys(section, folder), **read_link(section)
            )
        elif name == "network":
            section.allow(NETWORK_KEYS)
            access_point = section.number("access_point_mbps", "10^6 bits a second")
            encryption = read_encryption(section)
        elif name.startswith("provider:"):
            section.allow(PROVIDER_KEYS)
            providers.append(_provider(section, defaults, folder))
        elif name != "defaults":
            section.fail("", f"unknown section; a hosts file has {_SECTIONS}")
    if not providers:
        raise HostsError(f"{path}: describes no device; add a section [provider:NAME]", file=str(path))
    _refuse_duplicates(providers, sections)
    return Cluster(Path(path).stem, requester, tuple(providers), access_point, str(path), encryption)


def _provider(section: Section, defaults: Mapping[str, Any], folder: Path) -> Provider:
    name = section.name.removeprefix("provider:")
    if not _NAME.fullmatch(name) or name == "requester":
        section.fail("", f"{clip(name)} cannot be a name; use up to 63 letters, digits, '_', '-' and '.'")
    own = read_settings(section, folder)
    settings = {**defaults, **own}
    address, port = read_address(section)
    if address is None and "profile" not in settings:
        section.fail("", "has neither an address (a real device) nor a profile (a simulated one); add one")
    if port is not None and "ports" in own:
        section.fail("ports", "the address has a port already; name ports in one place only")
    ports = (port,) if port is not None else settings.get("ports", (DEFAULT_PORT,))
    slots = settings.get("slots", 1)
    if len(ports) == 1:
        ports = tuple(range(ports[0], ports[0] + slots))
    if len(ports) != slots:
        section.fail("ports", f"{len(ports)} ports for {slots} slots; give one port, or one for each slot")
    if ports[-1] > 65535:
        section.fail("slots", f"port {ports[-1]} is above 65535; start lower or use fewer slots")
    settings.update(name=name, address=address, ports=ports, line=section.line)
    return Provider(**settings)


def _refuse_duplicates(providers: Iterable[Provider], sections: Mapping[str, Section]) -> None:
    names: dict[str, Provider] = {}
    endpoints: dict[tuple[str, int], Provider] = {}
    for provider, device in _slots(providers):
        section = sections[f"provider:{provider.name}"]
        other = names.setdefault(device.name, provider)
        if other is not provider:
            problem = f"{device.name} is also the name of a slot or provider of line {other.line}; rename one"
            section.fail("slots" if provider.slots > 1 else "", problem)
        if device.address is None:
            continue
        other = endpoints.setdefault((_canonical(device.address), device.port), provider)
        if other is not provider:
            taken = f"{device.address}:{device.port} is already [provider:{other.name}] in line {other.line}"
            section.fail("address", f"{taken}; give another address or port")


def _slots(providers: Iterable[Provider]) -> Iterator[tuple[Provider, Provider]]:
    for provider in providers:
        for device in provider.devices():
            yield provider, device


def _canonical(host: str) -> str:
    return "127.0.0.1" if host.lower() == "localhost" else host.lower()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(_canonical(host)).is_loopback
    except ValueError:
        return False
