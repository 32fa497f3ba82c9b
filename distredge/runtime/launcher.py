"""Peers on this machine, as processes that end with this one."""

from __future__ import annotations

import os
import queue
import select
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO

from distredge.cluster.hosts import Cluster, Provider, Requester
from distredge.errors import PeerError, PeerTimeoutError
from distredge.runtime.cpu_quota import CpuQuota
from distredge.runtime.deployment import PeerAddress

START_S = 60.0
"""Time limit for a peer to be ready; a busy small machine may need many seconds."""
GRACE_S = 2.0
RESTART_S = 2.0
"""A peer is not started more often than that."""
FULL_SPEED = 0.999


@dataclass
class _Process:
    """One peer's process, and what is kept of it."""

    name: str
    command: list[str]
    popen: subprocess.Popen[bytes]
    stderr: IO[bytes]
    output: bytes = b""
    address: str = ""
    quota: CpuQuota | None = None
    started_s: float = field(default_factory=time.monotonic)

    def close(self) -> None:
        """Closes its pipes; the process has ended."""
        for pipe in (self.popen.stdin, self.popen.stdout, self.stderr):
            assert pipe is not None
            pipe.close()


class LocalPeers:
    """Starts peers on free loopback ports and ends them.

    A thread of its own starts the processes and lives as long as they may: the kernel ties a child's life
    to the thread that started it.

    Args:
        count: how many.
        threads: of the inference engine, in each.
        cpu_shares: for each, the share of one core that it may use; None for no limits. A control group
            limits CPU time where this process may make one, otherwise the peers rest between parts.
        cache_dir: where they keep models.

    Attributes:
        limited_by: "cpu quota", "duty cycle", or "" if nothing is limited.
    """

    def __init__(
        self,
        count: int,
        *,
        threads: int = 1,
        cpu_shares: Sequence[float] | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        shares = list(cpu_shares or [1.0] * count)
        if len(shares) != count or min(shares) <= 0:
            raise ValueError(f"{count} positive shares are needed, not {shares}")
        self._processes: list[_Process] = []
        self._quotas: list[CpuQuota | None] = [None] * count
        self.limited_by = ""
        if min(shares) < FULL_SPEED:
            self._limit(shares)
        resting = self.limited_by == "duty cycle"
        self._starts: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="local-peers", daemon=True)
        self._thread.start()
        try:
            for at, share in enumerate(shares):
                command = self._command(at, threads, min(1.0, share) if resting else 1.0, cache_dir)
                self._processes.append(self._in_thread(partial(self._start, at, command)).result())
        except BaseException:
            self.close()
            raise

    def _limit(self, shares: Sequence[float]) -> None:
        try:
            for at, share in enumerate(shares):
                if share < FULL_SPEED:
                    self._quotas[at] = CpuQuota(share, at)
        except OSError:
            self._remove_quotas()
            self.limited_by = "duty cycle"
        else:
            self.limited_by = "cpu quota"

    @staticmethod
    def _command(at: int, threads: int, duty: float, cache_dir: Path | None) -> list[str]:
        command = [sys.executable, "-m", "distredge", "peer", "--bind", "tcp://127.0.0.1:0", "--plain"]
        command += ["--name", f"peer{at}", "--threads", str(threads), "--exit-with-parent", str(os.getpid())]
        if duty < FULL_SPEED:
            command += ["--duty-cycle", str(duty)]
        if cache_dir is not None:
            command += ["--cache-dir", str(cache_dir)]
        return command

    def _work(self) -> None:
        """The thread that starts processes, and lives as long as they may."""
        while (start := self._starts.get()) is not None:
            start()

    def _in_thread(self, start: Callable[[], _Process]) -> Future[_Process]:
        found: Future[_Process] = Future()

        def work() -> None:
            try:
                found.set_result(start())
            except BaseException as error:
                found.set_exception(error)

        self._starts.put(work)
        return found

    def _start(self, at: int, command: list[str]) -> _Process:
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        try:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                # A terminal's Ctrl-C must not reach the peers: this process ends them when it is done.
                process_group=0,
            )
        except BaseException:
            stderr.close()
            raise
        return _Process(f"peer{at}", command, popen, stderr, quota=self._quotas[at])

    def wait_ready(self, timeout_s: float = START_S) -> list[PeerAddress]:
        """The peers' addresses, as soon as all listen.

        Raises:
            PeerError: one ended instead; the message holds what it said.
            PeerTimeoutError: one takes too long.
        """
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            for process in self._processes:
                if not process.address:
                    assert process.popen.stdout is not None
                    selector.register(process.popen.stdout, selectors.EVENT_READ, process)
            while selector.get_map():
                events = selector.select(deadline - time.monotonic())
                if not events:
                    silent: _Process = next(iter(selector.get_map().values())).data
                    text = f"peer {silent.name} did not start within {timeout_s:g} s"
                    raise PeerTimeoutError(text, peer=silent.name)
                for key, _ in events:
                    self._read(key.data)
                    if key.data.address:
                        selector.unregister(key.fileobj)
        for process in self._processes:
            self._slow_down(process)
        return [PeerAddress(process.name, process.address) for process in self._processes]

    @staticmethod
    def _slow_down(process: _Process) -> None:
        # Only once it is ready, since a slow start is of no use to anyone.
        if process.quota is not None:
            process.quota.add(process.popen.pid)

    def _read(self, process: _Process) -> None:
        assert process.popen.stdout is not None
        data = os.read(process.popen.stdout.fileno(), 4096)
        process.output += data
        if not data:
            process.popen.wait()
            raise PeerError(f"peer {process.name} did not start: {self._ending(process)}", peer=process.name)
        if process.output.startswith(b"ready ") and process.output.endswith(b"\n"):
            process.address = process.output.split()[-1].decode()

    @property
    def cluster(self) -> Cluster:
        """These peers as a cluster, for sessions that share them; waits until they listen.

        Raises:
            PeerError, PeerTimeoutError: as `wait_ready`.
        """
        providers = []
        for peer in self.wait_ready():
            host, _, port = peer.address.removeprefix("tcp://").rpartition(":")
            providers.append(Provider(peer.name, host, (int(port),)))
        return Cluster("local peers", Requester(), tuple(providers))

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids, in order."""
        return tuple(process.popen.pid for process in self._processes)

    def endings(self) -> dict[int, str]:
        """Peers whose process has ended, and how."""
        return {
            at: f"died ({self._ending(process)})"
            for at, process in enumerate(self._processes)
            if process.popen.poll() is not None
        }

    def revive(self, at: int) -> str | None:
        """A peer's address. If its process has ended another is started, under the same name; until that
        listens, this is None. Returns at once. Not for several threads."""
        process = self._processes[at]
        if process.popen.poll() is not None:
            if time.monotonic() - process.started_s >= RESTART_S:
                process.close()
                self._processes[at] = self._in_thread(partial(self._start, at, process.command)).result()
            return None
        if not process.address:
            assert process.popen.stdout is not None
            if not select.select([process.popen.stdout], [], [], 0)[0]:
                return None
            try:
                self._read(process)
            except PeerError:
                return None  # it will be started again
            if process.address:
                self._slow_down(process)
        return process.address or None

    @staticmethod
    def _ending(process: _Process) -> str:
        code = process.popen.returncode
        if code is not None and code < 0:
            how = f"killed by {signal.Signals(-code).name}"
        else:
            how = f"exit code {code}"
        process.stderr.seek(0)
        lines = process.stderr.read().decode(errors="replace").strip().splitlines()
        return f"{how}: {lines[-1][:500]}" if lines else how

    def close(self) -> None:
        """Ends all processes, and waits until they have ended."""
        for process in self._processes:
            process.popen.terminate()
        deadline = time.monotonic() + GRACE_S
        for process in self._processes:
            try:
                process.popen.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.popen.kill()  # it hangs or is stopped
                process.popen.wait()
            process.close()
        self._processes.clear()
        self._remove_quotas()
        self._starts.put(None)
        self._thread.join()

    def _remove_quotas(self) -> None:
        for quota in self._quotas:
            if quota is not None:
                quota.close()
        self._quotas = [None] * len(self._quotas)

    def __enter__(self) -> LocalPeers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
