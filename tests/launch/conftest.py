"""Testbeds for tests: names and subnets of their own, and nothing may be left of them."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from launch.testbed.bed import BASE, Testbed
from launch.testbed.config import HostConfig, Subnet, TestbedConfig
from launch.testbed.links import Names

ROOT = Path(__file__).parents[2]
# minutes long, so it has a target of its own: `make test-hosts`
collect_ignore = [] if os.environ.get("DISTREDGE_TEST_HOSTS") else ["test_four_hosts.py"]
_SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"
# what a controller needs of a checkout
_CHECKOUT = (
    "distredge",
    "policies",
    "launch",
    "fabfile.py",
    "setup.cfg",
    "pyproject.toml",
    "constraints.txt",
)


def missing_for_testbed(*more: str) -> str:
    """Why no testbed can be made here; empty if one can."""
    if os.geteuid() != 0:
        return "not root"
    gone = [program for program in ("ip", "tc", *more) if shutil.which(program, path=_SBIN) is None]
    return f"no {', '.join(gone)}: apt-get install iproute2 openssh-server" if gone else ""


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
        # without a command it has ended, and waits for its parent to notice
        if command and (f"{folder}/" in command or f"/{names.cgroup}/" in groups):
            found.append(f"process {process.name} {command}")
    return found


_numbers = itertools.count()


def make_config(*hosts: HostConfig, **settings: object) -> TestbedConfig:
    """A configuration that collides with nothing."""
    number = os.getpid() * 7 + next(_numbers)
    subnet = Subnet(f"10.{128 + number // 256 % 100}.{number % 256}.0/24")
    return TestbedConfig(f"t{number % 16**6:x}", hosts, subnet=subnet, **{"ssh": False, **settings})


@pytest.fixture
def bed_config() -> Iterator[Callable[..., TestbedConfig]]:
    """Makes configurations; in the end, nothing of them may be left."""
    if reason := missing_for_testbed():
        give_up(reason)
    made = []

    def make(*hosts: HostConfig, **settings: object) -> TestbedConfig:
        config = make_config(*hosts, **settings)
        made.append(config.name)
        return config

    yield make
    left = {name: find_traces(name) for name in made}
    for name in made:
        Testbed(TestbedConfig(name, ())).down()
    assert left == {name: [] for name in made}


@dataclass
class Farm:
    """A testbed and a controller: a checkout and a home folder of its own."""

    bed: Testbed
    checkout: Path
    home: Path
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("DISTREDGE")}
        self.environment = {**kept, "HOME": str(self.home)}

    def fab(self, *words: str, hosts: Path | None = None, **popen: object) -> subprocess.Popen[str]:
        """Starts `fab`, as a user in the checkout would."""
        named = {"DISTREDGE_HOSTS": str(hosts)} if hosts else {}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, "-m", "fabric", *words],
            cwd=self.checkout,
            env={**self.environment, **named},
            stdout=pipe,
            stderr=pipe,
            text=True,
            **popen,
        )

    def run(self, *words: str, hosts: Path | None = None) -> tuple[int, str]:
        """Runs `fab`; its exit code and all that it said."""
        process = self.fab(*words, hosts=hosts)
        said, complaints = process.communicate(timeout=240)
        return process.returncode, said + complaints

    def python(self, *words: str, hosts: Path | None = None, timeout_s: float = 240) -> str:
        """Runs the checkout's Python on this machine, as its user; what it prints. It must end well."""
        named = {"DISTREDGE_HOSTS": str(hosts)} if hosts else {}
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.checkout,
            env={**self.environment, **named},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def hosts(self, *names: str, extra: str = "") -> Path:
        """A hosts file of these hosts alone; `extra` is added to each section."""
        blocks = self.bed.hosts_file.read_text().split("\n\n")
        kept = [block for block in blocks for name in names if block.startswith(f"[provider:{name}]")]
        file = self.home / f"hosts-{next(_numbers)}.ini"
        file.write_text("\n\n".join(f"{block.rstrip()}\n{extra}\n" for block in kept))
        return file

    def home_of(self, host: str) -> Path:
        """A host's home folder, seen from here."""
        return self.bed.host_folder(host) / "home"

    def peers(self) -> list[str]:
        """Command lines of the peers that run on the hosts, without those that keep them."""
        network = str(self.bed.config.subnet[0]).removesuffix("0")
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = " ".join(file.read_bytes().decode(errors="replace").split("\0"))
            except OSError:
                continue
            if f" -m distredge peer --bind tcp://{network}" in line and "keeper.py" not in line:
                found.append(line)
        return found


def make_farm(folder: Path, *hosts: HostConfig, **settings: object) -> Iterator[Farm]:
    """A farm of these hosts; afterwards nothing of it may be left."""
    if reason := missing_for_testbed("sshd", "ssh"):
        give_up(reason)
    checkout, home = folder / "checkout", folder / "home"
    home.mkdir()
    for name in _CHECKOUT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, checkout / name)
    for name in ("README.md", "LICENSE"):
        (checkout / name).write_text(name)
    config = make_config(*hosts, ssh=True, hide=(str(ROOT), str(folder)), **settings)
    with Testbed(config) as bed:
        yield Farm(bed, checkout, home)
    assert find_traces(config.name) == []


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two hosts without limits, and one with a disk that is too small for a deployment."""
    hosts = (HostConfig("a"), HostConfig("b", None, 800, 800), HostConfig("small", disk_mb=60))
    yield from make_farm(tmp_path_factory.mktemp("controller"), *hosts)


@pytest.fixture(scope="module")
def four_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """CPU shares 0.6, 0.4, 0.3, 0.2 on links of 200, 100, 100, 50 Mbit/s."""
    shares, rates = (0.6, 0.4, 0.3, 0.2), (200, 100, 100, 50)
    hosts = [HostConfig(f"h{i}", s, r, r) for i, (s, r) in enumerate(zip(shares, rates, strict=True))]
    requester = HostConfig("requester", None, 1000, 1000)
    yield from make_farm(tmp_path_factory.mktemp("controller"), *hosts, requester=requester)


def wait_for(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    """Waits until the condition holds; for long, since a busy machine takes ten times its time."""
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


@pytest.fixture
def free_ports() -> Callable[[int], list[int]]:
    """Loopback ports that nobody uses just now."""

    def find(count: int) -> list[int]:
        with contextlib.ExitStack() as stack:
            servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
            return [server.getsockname()[1] for server in servers]

    return find
