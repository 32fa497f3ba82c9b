"""A testbed as a whole: up, run, set, down."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from distredge.errors import TestbedError
from launch.testbed import links, ssh
from launch.testbed.cgroup import CpuGroups, end_all
from launch.testbed.config import HostConfig, Subnet, TestbedConfig
from launch.testbed.cores import place, start_pacemaker
from launch.testbed.delay import start_relay
from launch.testbed.links import Names
from launch.testbed.lock import changing
from launch.testbed.system import require_root, tool

BASE = Path("/var/lib/distredge-testbed")
_HERE = Path(__file__).parent
_PYTHON = (sys.executable, "-I", "-S")


class Testbed:
    """Hosts on this machine, as described by a TestbedConfig.

    Everything made is called after the testbed, so `down` finds it all, whoever made it and however that
    ended. As a context manager it is up inside the block.
    """

    __test__ = False

    def __init__(self, config: TestbedConfig) -> None:
        self.config = config
        self.names = Names(config.name)
        self.folder = BASE / config.name
        # the same on every host. Not shared by testbeds: removing it would unmount it from the others'
        self.home = self.folder / "home"

    def __enter__(self) -> Testbed:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        """Makes all hosts. What a crashed testbed of this name left is removed first.

        Raises:
            TestbedError: not root, a tool or the cpu controller is missing, the subnet is in use, or this
                testbed is up already.
        """
        require_root("a testbed")
        for program in ("ip", "tc", *(("sshd", "ssh-keygen") if self.config.ssh else ())):
            tool(program)
        with changing(self.config.name) as lock:
            if self._state_file.exists():
                raise TestbedError(f"testbed {self.config.name} is up already; take it down first")
            self._remove()
            try:
                self._make(lock)
            except BaseException:
                self._remove()
                raise

    def run(self, host: str, argv: Sequence[str | Path], **popen: Any) -> subprocess.Popen[Any]:
        """Starts a program on a host, or, on `requester`, on this machine itself.

        The program has the process id, signals and exit code of an ordinary child. Its home folder is the
        host's; its working folder is `cwd`, as the host sees it, or the home folder.

        Args:
            host: name of a host, or `requester`.
            argv: program and arguments.
            popen: for `subprocess.Popen`.
        """
        words = [str(word) for word in argv]
        if host == "requester":
            return subprocess.Popen(words, **popen)
        cwd = str(popen.pop("cwd", None) or self.home)
        environment = dict(popen.pop("env", None) or os.environ)
        environment["HOME"] = str(self.home)
        return subprocess.Popen([*self._entry(host, cwd), *words], env=environment, **popen)

    def set(
        self,
        host: str,
        *,
        link_mbps: float | None = None,
        uplink_mbps: float | None = None,
        downlink_mbps: float | None = None,
        cpu: float | None = None,
    ) -> None:
        """Changes the rate or CPU share of a running host.

        Args:
            host: name of a host, or `requester` (which has no CPU share).
            link_mbps: both directions.
            uplink_mbps, downlink_mbps: one direction.
            cpu: cores' worth of time.

        Raises:
            TestbedError: no such host, the testbed is not up, or a value is out of range.
        """
        require_root("a testbed")
        if link_mbps is not None:
            uplink_mbps = link_mbps if uplink_mbps is None else uplink_mbps
            downlink_mbps = link_mbps if downlink_mbps is None else downlink_mbps
        for what, value in (("rate", uplink_mbps), ("rate", downlink_mbps), ("cpu", cpu)):
            if value is not None and not 0.001 <= value <= 30_000:
                raise TestbedError(f"{what} {value} is out of range; give a number above 0")
        with changing(self.config.name):
            current = Testbed.load(self.config.name)
            known = current._host(host)
            if cpu is not None and host == "requester":
                raise TestbedError(
                    "the requester is this machine itself and has no CPU share; set its link only"
                )
            if uplink_mbps is not None:
                links.set_uplink(current.config, host, uplink_mbps)
            if downlink_mbps is not None:
                links.set_downlink(current.config, host, downlink_mbps)
            if cpu is not None:
                CpuGroups.find().limit(f"{self.names.cgroup}/{host}", cpu)
            given: dict[str, Any] = {"uplink_mbps": uplink_mbps, "downlink_mbps": downlink_mbps, "cpu": cpu}
            changed = replace(known, **{key: value for key, value in given.items() if value is not None})
            self.config = current.config
            self._replace_host(changed)
            links.limit_packets(self.config)
            self._save()

    def down(self) -> None:
        """Removes every trace: processes, namespaces, links, groups, files. Nothing to remove is fine."""
        require_root("a testbed")
        with changing(self.config.name):
            self._remove()

    def status(self) -> list[dict[str, Any]]:
        """One entry per host, the requester first: its settings, address and number of processes."""
        groups = CpuGroups.find()
        found = []
        for host in (self.config.requester, *self.config.hosts):
            entry = {**asdict(host), "address": self.config.address(host.name)}
            if host.name != "requester":
                # those that keep the room open and listen for SSH do not count
                own = 1 + self.config.ssh
                entry["processes"] = len(groups.processes(f"{self.names.cgroup}/{host.name}")) - own
            found.append(entry)
        return found

    def traces(self) -> list[str]:
        """What exists of this testbed now, in words; empty when it is down."""
        groups = CpuGroups.find()
        found = [f"namespace {name}" for name in self.names.namespaces()]
        found += [f"cgroup {name}" for name in groups.groups(self.names.cgroup) if name == self.names.cgroup]
        if Path(f"/sys/class/net/{self.names.own_link}").exists():
            found.append(f"link {self.names.own_link}")
        if self.folder.exists():
            found.append(f"folder {self.folder}")
        return found

    @classmethod
    def load(cls, name: str) -> Testbed:
        """The running testbed of that name.

        Raises:
            TestbedError: it is not up.
        """
        file = BASE / name / "testbed.json"
        try:
            content = json.loads(file.read_text())
        except (OSError, ValueError):
            raise TestbedError(f"testbed {name} is not up; start it first", name=name) from None
        content["subnet"] = Subnet(content["subnet"])
        content["requester"] = HostConfig(**content["requester"])
        content["hosts"] = tuple(HostConfig(**host) for host in content["hosts"])
        content["hide"] = tuple(content["hide"])
        return cls(TestbedConfig(**content))

    @staticmethod
    def existing() -> list[str]:
        """Names of all testbeds of which anything exists, complete or not."""
        found = {name.removeprefix(links.PREFIX).split("-")[0] for name in links.all_namespaces()}
        found |= {name.removeprefix(links.PREFIX) for name in CpuGroups.find().groups(links.PREFIX)}
        found |= {
            link.name.removeprefix(links.PREFIX) for link in Path("/sys/class/net").glob(f"{links.PREFIX}*")
        }
        if BASE.exists():
            found |= {path.name for path in BASE.iterdir()}
        return sorted(found)

    def host_folder(self, host: str) -> Path:
        """What a host's own file system is made of: `home`, `tmp`, `run` ... (a small disk is elsewhere)."""
        return self.folder / "hosts" / host

    @property
    def hosts_file(self) -> Path:
        """The hosts file that fab tasks, launcher and commands take, while the testbed is up."""
        return self.folder / "hosts.ini"

    @property
    def _state_file(self) -> Path:
        """Exists from when the testbed is complete until it is taken down."""
        return self.folder / "testbed.json"

    def _save(self) -> None:
        content = {**asdict(self.config), "subnet": str(self.config.subnet)}
        temporary = self._state_file.with_suffix(".new")
        temporary.write_text(json.dumps(content, indent=1))
        temporary.replace(self._state_file)

    def _make(self, lock: int) -> None:
        config, groups = self.config, CpuGroups.find()
        self.home.mkdir(parents=True)
        links.create_access_point(config)
        relays = groups.create(f"{self.names.cgroup}/ap")
        for host in config.hosts:
            links.create_namespace(config, host.name)
            groups.create(f"{self.names.cgroup}/{host.name}")
            if host.delay_ms:
                start_relay(config, host, relays, lock)
            links.connect(config, host.name, relayed=host.delay_ms > 0)
        cores = place(config.hosts, sorted(os.sched_getaffinity(0)))
        if cores:
            groups.prefer(self.names.cgroup)
        if config.steady:
            start_pacemaker(config, lock)
        self._make_rooms(groups, cores, lock)
        if config.ssh:
            self._start_ssh(lock)
        for host in (config.requester, *config.hosts):
            links.set_uplink(config, host.name, host.uplink_mbps)
            links.set_downlink(config, host.name, host.downlink_mbps)
        links.limit_packets(config)
        for host in config.hosts:
            groups.limit(f"{self.names.cgroup}/{host.name}", host.cpu)
        self._save()

    def _make_rooms(self, groups: CpuGroups, cores: Mapping[str, int], lock: int) -> None:
        pipe, nothing, keep = subprocess.PIPE, subprocess.DEVNULL, (lock,)
        starting = []
        for host in self.config.hosts:
            group = groups.top / self.names.cgroup / host.name
            argv = [*_PYTHON, str(_HERE / "enter.py"), f"cgroup={group}", f"release={lock}"]
            argv += [f"cores={cores[host.name]}"] if host.name in cores else []
            room = (self._prepare(host), self.home, host.name, *self.config.hide)
            argv += ["--", *_PYTHON, str(_HERE / "room.py"), *map(str, room)]
            started = subprocess.Popen(
                argv,
                stdin=nothing,
                stdout=pipe,
                stderr=pipe,
                pass_fds=keep,
                cwd="/",
                text=True,
                start_new_session=True,
            )
            starting.append(started)
        said = [process.communicate() for process in starting]
        for host, process, (printed, complaint) in zip(self.config.hosts, starting, said, strict=True):
            if process.returncode:
                raise TestbedError(f"host {host.name}: {complaint.strip()}", host=host.name)
            (self.host_folder(host.name) / "room.pid").write_text(printed)

    def _start_ssh(self, lock: int) -> None:
        ssh.prepare(self.config, self.folder)
        starting = []
        for host in self.config.hosts:
            log = self.folder / "ssh" / f"sshd-{host.name}.log"
            argv = [tool("sshd"), "-f", str(ssh.server_settings(self.folder, host.name)), "-E", str(log)]
            entry = self._entry(host.name, str(self.home), lock)
            server = subprocess.Popen([*entry, *argv], stdin=subprocess.DEVNULL, pass_fds=(lock,))
            starting.append((host.name, log, server))
        for name, log, server in starting:
            if server.wait():
                raise TestbedError(f"host {name}: sshd did not start: {log.read_text().strip()}", host=name)

    def _prepare(self, host: HostConfig) -> Path:
        """The folder from which room.py makes a host's file system."""
        folder = self.host_folder(host.name)
        for name in ("tmp", "home", "run", "empty", "etc"):
            (folder / name).mkdir(parents=True)
        (folder / "tmp").chmod(0o1777)
        (folder / "home").chmod(0o700)
        if host.disk_mb is not None:
            (folder / "disk_mb").write_text(str(host.disk_mb))
        (folder / "etc/hosts").write_text(self._etc_hosts())
        (folder / "etc/passwd").write_text(_passwd_with_home(self.home))
        return folder

    def _entry(self, host: str, cwd: str, lock: int | None = None) -> list[str]:
        """The words before a program on a host; `lock` is given back when it is in the host's group."""
        self._host(host)
        groups = CpuGroups.find()
        try:
            room = int((self.host_folder(host) / "room.pid").read_text())
        except (OSError, ValueError):
            raise TestbedError(f"testbed {self.config.name} is not up; start it first") from None
        if room not in groups.processes(f"{self.names.cgroup}/{host}"):
            raise TestbedError(
                f"host {host} has lost its room; take the testbed down and up again", host=host
            )
        return [
            *_PYTHON,
            str(_HERE / "enter.py"),
            f"cgroup={groups.top / self.names.cgroup / host}",
            f"net=/run/netns/{self.names.namespace(host)}",
            f"uts=/proc/{room}/ns/uts",
            f"mnt=/proc/{room}/ns/mnt",
            f"cwd={cwd}",
            f"cores={','.join(map(str, os.sched_getaffinity(room)))}",
            *([] if lock is None else [f"release={lock}"]),
            "--",
        ]

    def _remove(self) -> None:
        CpuGroups.find().remove(self.names.cgroup)
        end_all(lambda: links.processes(self.names), self.names.testbed)  # what left its group
        links.remove_links(self.names)
        if self.folder.exists():
            shutil.rmtree(self.folder)
        with contextlib.suppress(OSError):  # another testbed may be up
            BASE.rmdir()

    def _etc_hosts(self) -> str:
        lines = ["127.0.0.1 localhost"]
        names = ["requester", *(host.name for host in self.config.hosts)]
        lines += [f"{self.config.address(name)} {name}" for name in names]
        return "\n".join(lines) + "\n"

    def _host(self, name: str) -> HostConfig:
        for host in (self.config.requester, *self.config.hosts):
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.config.hosts)
        raise TestbedError(f"testbed {self.config.name} has no host {name!r}; it has {known} and requester")

    def _replace_host(self, changed: HostConfig) -> None:
        if changed.name == "requester":
            self.config = replace(self.config, requester=changed)
        else:
            hosts = tuple(changed if host.name == changed.name else host for host in self.config.hosts)
            self.config = replace(self.config, hosts=hosts)


def _passwd_with_home(home: Path) -> str:
    lines = []
    for line in Path("/etc/passwd").read_text().splitlines():
        fields = line.split(":")
        if fields[0] == "root":
            fields[5] = str(home)
        lines.append(":".join(fields))
    return "\n".join(lines) + "\n"
