"""An SSH server on each host, with keys of the testbed's own, and the hosts file that leads to them."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from distredge.cluster.hosts import Cluster, Provider, Requester
from distredge.cluster.hosts_writer import format_hosts
from launch.testbed.config import HostConfig, TestbedConfig
from launch.testbed.system import call

# what a packet of 1,500 bytes keeps for payload behind Ethernet, IP and TCP headers
PAYLOAD_SHARE = 0.956


def prepare(config: TestbedConfig, folder: Path) -> None:
    """Makes keys, server settings, `known_hosts` and `hosts.ini` in the testbed's folder.

    Each host's own folder, for its `run/sshd`, exists already.
    """
    keys = folder / "ssh"
    keys.mkdir(mode=0o700)
    _make_key(keys / "id", f"testbed {config.name}")
    (keys / "authorized_keys").write_text((keys / "id.pub").read_text())
    known = []
    for host in config.hosts:
        key = keys / f"host-{host.name}"
        _make_key(key, host.name)
        kind, public, _ = key.with_suffix(".pub").read_text().split(maxsplit=2)
        known.append(f"{config.address(host.name)} {kind} {public}\n")
        (folder / "hosts" / host.name / "run/sshd").mkdir()
        server_settings(folder, host.name).write_text(_settings(config, host, folder))
    (folder / "known_hosts").write_text("".join(known))
    heading = (
        f"Made by `python -m launch.testbed up` for testbed {config.name}; gone when it is taken down.\n"
    )
    heading += "Rates are those of payload: 95.6 % of what is on the wire."
    (folder / "hosts.ini").write_text(format_hosts(cluster(config, folder), heading))


def server_settings(folder: Path, host: str) -> Path:
    """The configuration file of a host's SSH server."""
    return folder / "ssh" / f"sshd-{host}.conf"


def cluster(config: TestbedConfig, folder: Path) -> Cluster:
    """The testbed as a hosts file describes it."""
    providers = tuple(
        Provider(
            name=host.name,
            address=config.address(host.name),
            ssh_user="root",
            identity_file=str(folder / "ssh/id"),
            known_hosts=str(folder / "known_hosts"),
            # the interpreter that runs this: the hosts share the machine's files
            python=str(Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")),
            threads=host.threads or math.ceil(host.cpu or 1),
            memory_mb=host.memory_mb,
            uplink_mbps=_payload(host.uplink_mbps),
            downlink_mbps=_payload(host.downlink_mbps),
            latency_ms=host.delay_ms,
        )
        for host in config.hosts
    )
    own = config.requester
    requester = Requester(config.address("requester"), _payload(own.uplink_mbps), _payload(own.downlink_mbps))
    return Cluster(config.name, requester, providers)


def _payload(mbps: float | None) -> float | None:
    return None if mbps is None else round(mbps * PAYLOAD_SHARE, 3)


def _make_key(file: Path, comment: str) -> None:
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", file)


def _settings(config: TestbedConfig, host: HostConfig, folder: Path) -> str:
    settings = {
        "ListenAddress": config.address(host.name),
        "HostKey": folder / "ssh" / f"host-{host.name}",
        "AuthorizedKeysFile": folder / "ssh/authorized_keys",
        "PidFile": "/run/sshd.pid",
        "PermitRootLogin": "prohibit-password",
        "AuthenticationMethods": "publickey",
        "UsePAM": "no",
        "UseDNS": "no",
        "PrintMotd": "no",
        "PrintLastLog": "no",
        # several controllers with many connections each are normal here
        "MaxStartups": 100,
        "MaxSessions": 100,
        "Subsystem": "sftp internal-sftp",
    }
    return "".join(f"{key} {value}\n" for key, value in settings.items())
