"""Starts the relay (relay.py) that stands in for a host's veth pair when its link has a delay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from distredge.errors import TestbedError
from launch.testbed.config import HostConfig, TestbedConfig
from launch.testbed.links import Names, port_name

_HERE = Path(__file__).parent


def start_relay(config: TestbedConfig, host: HostConfig, group: Path, lock: int) -> None:
    """Makes the two ends of a delayed host's link; they last until the group's processes end.

    Args:
        config: the testbed.
        host: one with a delay; its namespace exists.
        group: folder of the cgroup for the relay, one without a limit.
        lock: descriptor of the testbed's lock, which the relay gives back once it is in the group.

    Raises:
        TestbedError: the relay did not start.
    """
    if not Path("/dev/net/tun").exists():
        remedy = "modprobe tun, or remove delay_ms"
        raise TestbedError(f"host {host.name}: a delay needs /dev/net/tun, which is missing; {remedy}")
    names = Names(config.name)
    python = [sys.executable, "-I", "-S"]
    argv = [*python, str(_HERE / "enter.py"), f"cgroup={group}", f"release={lock}", "--"]
    argv += [*python, str(_HERE / "relay.py")]
    argv += [f"/run/netns/{names.namespace(place)}" for place in ("ap", host.name)]
    argv += [port_name(config, host.name), str(host.delay_ms), str(host.jitter_ms)]
    pipe = subprocess.PIPE
    nothing, keep = subprocess.DEVNULL, (lock,)
    process = subprocess.Popen(
        argv,
        stdin=nothing,
        stdout=pipe,
        stderr=pipe,
        pass_fds=keep,
        cwd="/",
        text=True,
        start_new_session=True,
    )
    printed, complaint = process.communicate()
    if process.returncode:
        raise TestbedError(f"host {host.name}: {complaint.strip() or printed}", host=host.name)
