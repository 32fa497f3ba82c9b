"""Which processor core each host has for itself, and what makes the kernel give it there at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from distredge.errors import TestbedError
from launch.testbed.config import HostConfig, TestbedConfig
from launch.testbed.links import Names

FILLED = 0.9
"""Of a core, at most, is promised to hosts: the requester, and the kernel's own work, need the rest."""
_HERE = Path(__file__).parent


def place(hosts: Sequence[HostConfig], cores: Sequence[int]) -> dict[str, int]:
    """A core for each host, the largest shares first; empty if they do not fit, or one has no share.

    A host that computes on several cores with a quota under one loses much of it: the kernel hands quotas
    out per core, 1 ms at least, so that what its I/O thread got is missing where its compute thread waits.
    """
    promised = dict.fromkeys(cores, 0.0)
    found: dict[str, int] = {}
    for host in sorted(hosts, key=lambda host: -(host.cpu or 0.0)):
        core = min(promised, key=lambda core: promised[core])
        if host.cpu is None or promised[core] + host.cpu > FILLED:
            return {}
        promised[core] += host.cpu
        found[host.name] = core
    return found


def start_pacemaker(config: TestbedConfig, lock: int) -> None:
    """Makes the kernel look anew, many times a second, for who is to run (pacemaker.py).

    Args:
        config: the testbed; its access point exists, and is where `down` finds the pacemaker.
        lock: descriptor of the testbed's lock, given back once the pacemaker is there.

    Raises:
        TestbedError: this process may not use real-time priority.
    """
    python = [sys.executable, "-I", "-S"]
    place = f"net=/run/netns/{Names(config.name).namespace('ap')}"
    argv = [*python, str(_HERE / "enter.py"), place, f"release={lock}", "--"]
    argv += [*python, str(_HERE / "pacemaker.py"), *map(str, sorted(os.sched_getaffinity(0)))]
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        pass_fds=(lock,),
        cwd="/",
        text=True,
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        remedy = "remove steady, or allow real-time priority"
        raise TestbedError(f"steady: {done.stderr.strip() or done.returncode}; {remedy}")
