"""Peers on this machine, as processes that end with this one."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from distredge.errors import PeerError, PeerTimeoutError
from distredge.runtime.cpu_quota import CpuQuota
from distredge.runtime.deployment import PeerAddress

START_S = 60.0
"""Time limit for a peer to be ready; a busy small machine may need many seconds."""
GRACE_S = 2.0
FULL_SPEED = 0.999


@dataclass
class _Process:
    """One peer's process, and what is kept of it."""

    name: str
    popen: subprocess.Popen[bytes]
    stderr: IO[bytes]
    output: bytes = b""
    address: str = ""
    quota: CpuQuota | None = None


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
        self._wanted = threading.Event()
        started: Future[None] = Future()
        commands = [
            self._command(at, threads, min(1.0, share) if resting else 1.0, cache_dir)
            for at, share in enumerate(shares)
        ]
        self._thread = threading.Thread(
            target=self._start, args=(commands, started), name="local-peers", daemon=True
        )
        self._thread.start()
        try:
            started.result()
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

    def _start(self, commands: list[list[str]], started: Future[None]) -> None:
        try:
            for at, command in enumerate(commands):
                stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
                popen = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    # A terminal's Ctrl-C must not reach the peers: this process ends them when it is done.
                    process_group=0,
                )
                self._processes.append(_Process(f"peer{at}", popen, stderr, quota=self._quotas[at]))
        except BaseException as error:
            started.set_exception(error)
        else:
            started.set_result(None)
        self._wanted.wait()

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
            # Only now, since a slow start is of no use to anyone.
            if process.quota is not None:
                process.quota.add(process.popen.pid)
        return [PeerAddress(process.name, process.address) for process in self._processes]

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
    def pids(self) -> tuple[int, ...]:
        """Process ids, in order."""
        return tuple(process.popen.pid for process in self._processes)

    def find_dead(self) -> tuple[str, str] | None:
        """Name of a peer whose process has ended, and how; None if all live."""
        for process in self._processes:
            if process.popen.poll() is not None:
                return process.name, f"died ({self._ending(process)})"
        return None

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
            for pipe in (process.popen.stdin, process.popen.stdout, process.stderr):
                assert pipe is not None
                pipe.close()
        self._processes.clear()
        self._remove_quotas()
        self._wanted.set()
        if self._thread is not None:
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
