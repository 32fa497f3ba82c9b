"""Nothing may be left behind: no process, socket, thread or open file."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import zmq

from distredge.runtime.session import InferenceSession
from tests.models import branches, chain


@pytest.fixture(scope="session", autouse=True)
def _started_once() -> None:
    """pyzmq starts its own thread, with a socket, at the first message that is not copied, and keeps it."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as a, context.socket(zmq.PAIR) as b:
        a.bind("inproc://warm")
        b.connect("inproc://warm")
        a.send(bytes(1 << 20), copy=False)
        b.recv(copy=False)
    import onnxruntime

    onnxruntime.InferenceSession(chain(), providers=["CPUExecutionProvider"])


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before = what_is_open()
    yield
    deadline = time.monotonic() + 5
    while (left := what_is_new(before)) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    assert not left, f"left behind: {left}"


def what_is_new(before: list[set[object]]) -> list[set[object]]:
    differences = [new - old for old, new in zip(before, what_is_open(), strict=True)]
    return [difference for difference in differences if difference]


def what_is_open() -> list[set[object]]:
    processes = {(child.pid, " ".join(child.cmdline()[:6])) for child in children()}
    threads = {thread for thread in threading.enumerate() if not thread.name.startswith("pyzmq")}
    return [set(processes), set(threads), open_files()]


def children() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE:
                child.cmdline()
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def open_files() -> set[object]:
    found: set[object] = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add((entry.name, os.readlink(entry)))
        except OSError:
            continue
    return found


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    return wait_until


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Looks again and again, up to a deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.01)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for weights, so that no test touches the user's."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def session(cache: Path) -> Iterator[InferenceSession]:
    with InferenceSession(branches(), local_peers=3, policy="equal", cache_dir=cache) as session:
        yield session
