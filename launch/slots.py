"""The peers of one launch: processes on this machine, or on others over SSH, that end with the launcher."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from distredge.cluster.hosts import Cluster, Provider
from distredge.cluster.keys import is_encrypted
from distredge.errors import LaunchError
from launch.peers import peer_arguments
from launch.session import connection_to, open_connection, start_program

LEASE_S = 5.0
"""How long a peer on another host lives on when the launcher says nothing any more."""
BEAT_S = 1.0
STOP_S = 5.0

Report = Callable[["Slot", str, object], None]
"""Takes `("line", text)` and `("ended", exit code)` of a slot, from any thread."""


class Slot(ABC):
    """One peer. `rank` counts from 1: the application is 0."""

    def __init__(self, rank: int, cluster: Cluster, device: Provider, report: Report) -> None:
        self.rank = rank
        self.cluster = cluster
        self.device = device
        self.report = report
        self.thread: threading.Thread | None = None

    @property
    def label(self) -> str:
        return f"{self.rank} {self.device.name}"

    @abstractmethod
    def start(self) -> None:
        """Starts the peer; from now on its output and its end are reported.

        Raises:
            LaunchError: it cannot be started.
        """

    @abstractmethod
    def end(self) -> None:
        """Begins to end it."""

    @abstractmethod
    def wait(self) -> None:
        """Returns when it has ended, by force if it must."""

    def beat(self) -> None:  # noqa: B027 (only peers on other hosts have a lease)
        """Renews its lease."""

    def _read(self, stream: Any, code: Callable[[], object]) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in stream:
                text = line.decode(errors="replace").rstrip()
                self.report(self, "line", text)
        self.report(self, "ended", code())

    def _follow(self, stream: Any, code: Callable[[], object]) -> None:
        self.thread = threading.Thread(target=self._read, args=(stream, code), daemon=True)
        self.thread.start()


class LocalSlot(Slot):
    """A peer on this machine. The kernel ends it with the launcher.

    The thread that starts it must live as long as it: call `start` in the main thread.
    """

    def start(self) -> None:
        device = self.device
        assert device.endpoint is not None
        if is_encrypted(self.cluster, device):
            raise LaunchError("peers on this machine have no keys; leave out `encryption = on`")
        words = [sys.executable, "-m", "distredge", "peer", "--bind", device.endpoint, "--name", device.name]
        words.append("--plain")
        words += ["--exit-with-parent", str(os.getpid()), "--threads", str(device.threads or 0)]
        for name in device.execution_providers:
            words += ["--execution-provider", name]
        pipe = subprocess.PIPE
        environment = {**os.environ, "DISTREDGE_RANK": str(self.rank)}
        # in a group of its own, so that a terminal's Ctrl-C reaches the application first
        self.process = subprocess.Popen(
            words, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, process_group=0, env=environment
        )
        self._follow(self.process.stdout, self.process.wait)

    def end(self) -> None:
        self.process.terminate()

    def wait(self) -> None:
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.thread is not None:
            self.thread.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class RemoteSlot(Slot):
    """A peer of a deployed host, with a lease: it ends when this launcher does, or falls silent."""

    def start(self) -> None:
        device = self.device
        self._connection = connection_to(device)
        try:
            open_connection(self._connection, device)
            words = [device.deploy_dir, str(LEASE_S), f"DISTREDGE_RANK={self.rank}"]
            words += [str(device.address), str(device.port), "--", *peer_arguments(self.cluster, device, ())]
            _, self._channel, printed = start_program(
                self._connection, device, ("basics", "facts", "leased"), words
            )
        except BaseException:
            self._connection.close()
            raise
        self._channel.settimeout(None)
        self._follow(printed, self._channel.recv_exit_status)

    def beat(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.send(b".")

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.shutdown_write()

    def wait(self) -> None:
        if self.thread is not None:
            self.thread.join(2 * STOP_S)
        self._connection.close()


def make_slot(rank: int, cluster: Cluster, device: Provider, report: Report) -> Slot:
    """A slot on this machine for a loopback address without SSH settings, else on another."""
    over_ssh = device.ssh_user or device.identity_file or not device.is_local
    return (RemoteSlot if over_ssh else LocalSlot)(rank, cluster, device, report)


def start_all(slots: list[Slot]) -> None:
    """Starts local ones here, remote ones side by side.

    Raises:
        LaunchError: one cannot be started; those that were are left to the caller to end.
    """
    problems: list[str] = []

    def connect(slot: Slot) -> None:
        try:
            slot.start()
        except LaunchError as error:
            problems.append(f"peer {slot.label}: {error}")
            slot.report(slot, "failed", str(error))

    threads = [
        threading.Thread(target=connect, args=(slot,)) for slot in slots if isinstance(slot, RemoteSlot)
    ]
    for thread in threads:
        thread.start()
    for slot in slots:
        if isinstance(slot, LocalSlot):
            slot.start()
    for thread in threads:
        thread.join()
    if problems:
        raise LaunchError("; ".join(problems))
