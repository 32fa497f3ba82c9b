"""One operation on all hosts at once: results per host, the successes kept when others fail."""

from __future__ import annotations

import getpass
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from distredge.cluster.hosts import Cluster, Provider
from distredge.errors import LaunchError
from launch.session import HostSession


@dataclass(frozen=True, slots=True)
class Host:
    """One deploy folder of one machine, and the providers that share it."""

    providers: tuple[Provider, ...]

    @property
    def first(self) -> Provider:
        return self.providers[0]

    @property
    def name(self) -> str:
        """For messages: the providers' names."""
        return ", ".join(provider.name for provider in self.providers)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one host or peer.

    Attributes:
        name: of the provider or peer.
        ok: whether it did what was asked.
        text: one line.
        detail: more, for those who ask for JSON.
    """

    name: str
    ok: bool
    text: str
    detail: Any = None


Say = Callable[[str], None]
Operation = Callable[[HostSession, Host, Say], Sequence[Outcome]]


def hosts_of(cluster: Cluster) -> tuple[Host, ...]:
    """The providers, joined where several stand on one machine and share a deploy folder."""
    found: dict[tuple[object, ...], list[Provider]] = {}
    for provider in cluster.providers:
        key = provider.address, provider.ssh_port, provider.ssh_user, provider.deploy_dir
        found.setdefault(key, []).append(provider)
    return tuple(Host(tuple(providers)) for providers in found.values())


def on_all(
    cluster: Cluster,
    task: str,
    operation: Operation,
    *,
    lock: bool,
    only: Callable[[Host], bool] = lambda _: True,
) -> list[Outcome]:
    """Runs an operation on every host in parallel.

    Args:
        cluster: all of its providers have addresses.
        task: what this is, for the holder of the lock.
        operation: gets an open session; what it raises as LaunchError becomes the outcome.
        only: which hosts to touch.
        lock: take each host's lock, so that no other controller changes it meanwhile.

    Returns:
        Outcomes in the order of the hosts file.
    """
    hosts = [host for host in hosts_of(cluster) if only(host)]
    sessions: list[HostSession] = []
    guard = threading.Lock()

    def work(host: Host) -> Sequence[Outcome]:
        def say(text: str) -> None:
            progress(f"{host.name}: {text}")

        try:
            with HostSession(host.first) as session:
                with guard:
                    sessions.append(session)
                if lock:
                    session.ask("lock", holder=_holder(task))
                return operation(session, host, say)
        except LaunchError as error:
            return [Outcome(provider.name, False, str(error)) for provider in host.providers]
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            return [Outcome(provider.name, False, problem) for provider in host.providers]

    pool = ThreadPoolExecutor(max_workers=max(1, min(64, len(hosts))))
    try:
        outcomes = [outcome for found in pool.map(work, hosts) for outcome in found]
    except BaseException:
        for session in sessions:
            session.close()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return outcomes


def progress(line: str) -> None:
    """A line about what goes on, where a person may be watching; quiet otherwise."""
    if sys.stderr.isatty() or os.environ.get("DISTREDGE_PROGRESS"):
        print(f"  {line}", file=sys.stderr, flush=True)


def _holder(task: str) -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"{user}@{socket.gethostname()} (process {os.getpid()}, {task}, since {since})"


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Columns of texts, aligned; the last column is not padded."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
