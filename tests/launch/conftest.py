"""Testbeds for tests: names and subnets of their own, and nothing may be left of them."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launch.testbed.bed import BASE, Testbed
from launch.testbed.config import HostConfig, Subnet, TestbedConfig
from launch.testbed.links import Names

_SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def missing_for_testbed() -> str:
    """Why no testbed can be made here; empty if one can."""
    if os.geteuid() != 0:
        return "not root"
    gone = [program for program in ("ip", "tc") if shutil.which(program, path=_SBIN) is None]
    return f"no {', '.join(gone)}: apt-get install iproute2" if gone else ""


def give_up(reason: str) -> None:
    """Skips for this reason, but never in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must run this test: {reason}")
    pytest.skip(reason)


def find_traces(name: str) -> list[str]:
    """All that is left of a testbed, looked for without the testbed's own code."""
    names = Names(name)
    found = [f"namespace {n}" for n in names.namespaces()]
    found += [f"link {p.name}" for p in Path("/sys/class/net").iterdir() if p.name == names.own_link]
    found += [f"cgroup {p}" for p in Path("/sys/fs/cgroup").glob(f"*/{names.cgroup}*")]
    found += [f"cgroup {p}" for p in Path("/sys/fs/cgroup").glob(f"{names.cgroup}*")]
    folder = str(BASE / name)
    found += [
        f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if folder in line
    ]
    found += [f"folder {folder}"] if Path(folder).exists() else []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            groups = (process / "cgroup").read_text()
        except OSError:
            continue  # it has ended meanwhile
        if f"{folder}/" in command or f"/{names.cgroup}/" in groups:
            found.append(f"process {process.name} {command}")
    return found


_numbers = itertools.count()


@pytest.fixture
def bed_config() -> Iterator[Callable[..., TestbedConfig]]:
    """Makes configurations that collide with nothing; in the end, nothing of them may be left."""
    if reason := missing_for_testbed():
        give_up(reason)
    made = []

    def make(*hosts: HostConfig, **settings: object) -> TestbedConfig:
        number = os.getpid() * 7 + next(_numbers)
        name = f"t{number % 16**6:x}"
        subnet = Subnet(f"10.{128 + number // 256 % 100}.{number % 256}.0/24")
        config = TestbedConfig(name, hosts, subnet=subnet, **{"ssh": False, **settings})
        made.append(name)
        return config

    yield make
    left = {name: find_traces(name) for name in made}
    for name in made:
        Testbed(TestbedConfig(name, ())).down()
    assert left == {name: [] for name in made}


def wait_for(condition: Callable[[], object], limit_s: float = 10.0) -> None:
    """Waits until the condition holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def poll() -> Callable[..., None]:
    return wait_for


@pytest.fixture
def traces() -> Callable[[str], list[str]]:
    return find_traces


@pytest.fixture
def skip_or_fail() -> Callable[[str], None]:
    return give_up
