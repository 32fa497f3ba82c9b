"""An application and its peers as one job, as mpirun does it: started together, ended together."""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from distredge.cluster.hosts import Cluster, Provider, Requester
from distredge.cluster.hosts_writer import format_hosts
from distredge.cluster.keys import with_keys_named
from distredge.errors import LaunchError
from launch.slots import BEAT_S, Slot, make_slot, start_all

READY_S = 60.0
"""How long a peer may take until it listens; a slow host imports for many seconds."""
STOP_S = 5.0
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

Event = tuple[str, object, object]


class Job:
    """Peers, and an application that uses them.

    Args:
        cluster: where the peers run; one per device.
        argv: the application and its arguments.
    """

    def __init__(self, cluster: Cluster, argv: Sequence[str]) -> None:
        self._cluster = cluster
        self._argv = list(argv)
        # its `put` may be called from a signal handler
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._slots = [
            make_slot(rank, cluster, device, lambda slot, kind, what: self._events.put((kind, slot, what)))
            for rank, device in enumerate(cluster.devices, 1)
        ]
        self._started: list[Slot] = []
        self._ended: set[Slot] = set()
        self._application: subprocess.Popen[bytes] | None = None
        self._over = threading.Event()

    def run(self) -> int:
        """Runs everything to its end.

        Returns:
            The application's exit code (128 and the signal's number if a signal ended it).

        Raises:
            LaunchError: a peer did not start, or failed while the application ran.
        """
        with self._signals():
            try:
                start_all(self._slots)
                threading.Thread(target=self._beat, daemon=True).start()
                addresses = self._wait_ready()
                return self._run_application(addresses)
            finally:
                self._end()

    def _wait_ready(self) -> dict[str, str]:
        """Where each peer really listens, by name.

        Raises:
            LaunchError: one ended, or takes too long.
        """
        found: dict[str, str] = {}
        said: dict[Slot, str] = {}
        deadline = time.monotonic() + READY_S
        while len(found) < len(self._slots):
            try:
                kind, slot, what = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                late = [s.label for s in self._slots if s.device.name not in found]
                raise LaunchError(f"peers {', '.join(late)} were not ready within {READY_S:g} s") from None
            if kind == "signal":
                raise LaunchError(f"ended by signal {what} before the application was started")
            assert isinstance(slot, Slot)
            text = str(what)
            if kind == "ended":
                self._ended.add(slot)
                raise LaunchError(f"peer {slot.label} did not start: {said.get(slot, 'it said nothing')}")
            if text.startswith("ready "):
                found[slot.device.name] = text.split()[-1]
            else:
                said[slot] = text
                self._print(slot, text)
        return found

    def _run_application(self, addresses: dict[str, str]) -> int:
        with tempfile.TemporaryDirectory(prefix="distredge-launch-") as folder:
            hosts = Path(folder, "hosts.ini")
            hosts.write_text(format_hosts(self._as_started(addresses), "Made by the launcher for one job."))
            environment = {
                **os.environ,
                "DISTREDGE_HOSTS": str(hosts),
                "DISTREDGE_RANK": "0",
                "DISTREDGE_SIZE": str(1 + len(self._slots)),
                # so that `python` is the one that has this project
                "PATH": os.pathsep.join(
                    [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
                ),
            }
            try:
                application = subprocess.Popen(self._argv, env=environment, preexec_fn=_end_with_parent)
            except OSError as error:
                raise LaunchError(f"cannot start {self._argv[0]}: {error.strerror}", exit_code=127) from None
            self._application = application
            threading.Thread(target=self._wait_application, args=(application,), daemon=True).start()
            return self._watch(application)

    def _watch(self, application: subprocess.Popen[bytes]) -> int:
        interrupted = False
        while True:
            kind, slot, what = self._events.get()
            if kind == "application":
                code = int(str(what))
                return code if code >= 0 else 128 - code
            if kind == "signal":
                number = int(str(what))
                # a terminal has sent its Ctrl-C to the application, too
                if number != signal.SIGINT or interrupted or not _in_foreground():
                    application.send_signal(number)
                interrupted = interrupted or number == signal.SIGINT
            elif kind == "line":
                assert isinstance(slot, Slot)
                self._print(slot, str(what))
            elif kind == "ended":
                assert isinstance(slot, Slot)
                self._ended.add(slot)
                how = _ending(int(str(what)))
                self._stop_application(application)
                raise LaunchError(
                    f"peer {slot.label} failed ({how}); the application was ended", peer=slot.label
                )

    def _as_started(self, addresses: dict[str, str]) -> Cluster:
        """The cluster with the ports that the peers have taken."""
        devices = [
            replace(device, ports=(int(addresses[device.name].rpartition(":")[2]),))
            for device in self._cluster.devices
        ]
        return replace(with_keys_named(self._cluster), providers=tuple(devices))

    def _stop_application(self, application: subprocess.Popen[bytes]) -> None:
        application.terminate()
        try:
            application.wait(STOP_S)
        except subprocess.TimeoutExpired:
            application.kill()
            application.wait()

    def _wait_application(self, application: subprocess.Popen[bytes]) -> None:
        self._events.put(("application", None, application.wait()))

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            for slot in self._slots:
                slot.beat()

    def _end(self) -> None:
        self._over.set()
        if self._application is not None and self._application.poll() is None:
            self._stop_application(self._application)
        living = [slot for slot in self._slots if slot.thread is not None]
        for slot in living:
            slot.end()
        for slot in living:
            slot.wait()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        before = {
            number: signal.signal(number, lambda received, _: self._events.put(("signal", None, received)))
            for number in _FORWARDED
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @staticmethod
    def _print(slot: Slot, text: str) -> None:
        print(f"[{slot.label}] {text}", file=sys.stderr, flush=True)


def local_cluster(count: int) -> Cluster:
    """So many peers with one thread each, on free ports of this machine."""
    # port 0: each takes a free one, and says which
    devices = tuple(Provider(f"peer{i}", "127.0.0.1", (0,), threads=1) for i in range(count))
    return Cluster("local", Requester(), devices)


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """In a child: SIGTERM when the launcher is killed, since the peers go then, too."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def _ending(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
