"""A peer under hostile input stays up, bounded, and right to everybody else. `make hostile`: for longer.

`HOSTILE_SECONDS` and `HOSTILE_SEED` in the environment set how long and from which seed.
"""

from __future__ import annotations

import os
import random
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zmq

from distredge.runtime.launcher import LocalPeers
from distredge.runtime.session import InferenceSession
from tests.hostile.decoding import fuzz
from tests.hostile.samples import headers, plan_bytes
from tests.hostile.storm import Storm, lives, settle
from tests.hostile.wire import HELLO, READY, Wire
from tests.models import chain
from tests.runtime.test_encryption import Town
from tests.runtime.test_peer import IMAGE, Someone, deploy

SECONDS = float(os.environ.get("HOSTILE_SECONDS", "3"))
SEED = int(os.environ.get("HOSTILE_SEED", "1"))
GROWTH_BYTES = 150 * 1024 * 1024
"""Of a peer, under attack: what sessions of an attacker may take."""

pytestmark = pytest.mark.timeout(300 + 4 * SECONDS)


@pytest.fixture(scope="module")
def peer(cache: Path) -> Iterator[tuple[str, psutil.Process, LocalPeers]]:
    with LocalPeers(1, cache_dir=cache) as peers:
        (peer,) = peers.wait_ready()
        yield peer.address, psutil.Process(peers.pids[0]), peers
        assert not peers.endings()


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as context:
        yield context
        context.destroy(linger=0)


def hosts_of(address: str, folder: Path) -> Path:
    file = folder / "hosts.ini"
    file.write_text(f"[provider:a]\naddress = {address.removeprefix('tcp://')}\n")
    return file


def test_decoders_raise_only_what_they_say() -> None:
    fed, lines = fuzz(headers(7), [plan_bytes()], seed=SEED, messages=20_000, seconds=SECONDS)
    print(f"{fed} mutants, {lines} lines reached")
    assert lines > 150


def test_a_storm_of_mutants_disturbs_nobody(peer: Any, cache: Path, tmp_path: Path, context: Any) -> None:
    address, process, peers = peer
    with InferenceSession(
        chain(), hosts=hosts_of(address, tmp_path), policy="equal", cache_dir=cache
    ) as good:
        (right,) = good.run(None, {"x0": IMAGE})
        before, files = process.memory_info().rss, process.num_fds()
        frames, end_s = 0, time.monotonic() + SECONDS
        with Storm(address, cache, SEED, (good._client.session,)) as storm:
            while time.monotonic() < end_s or storm.sent < 2000:
                for (answer,) in good.stream([IMAGE] * 20):
                    assert np.array_equal(answer, right)
                frames += 20
                assert storm.error is None, storm.error
        assert lives(context, address, cache)
        grown = process.memory_info().rss - before
        print(f"{storm.sent} messages, {frames} frames, {grown / 1e6:.0f} MB grown")
        assert grown < GROWTH_BYTES
        assert settle(lambda: process.num_fds() <= files + 40, 15), "connections are given back"
    for each in peers._processes:
        each.stderr.seek(0)
        assert each.stderr.read() == b"", "a traceback is a case that nobody thought of"


def test_a_flood_of_half_open_connections(peer: Any, cache: Path, context: Any) -> None:
    address, process, _ = peer
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    before, files = process.memory_info().rss, process.num_fds()
    with ExitStack() as stack:
        for _ in range(800):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
        assert lives(context, address, cache)
        assert process.memory_info().rss - before < GROWTH_BYTES
        assert settle(lambda: process.num_fds() < files + 100, 15), "ZeroMQ gives them five seconds"


def test_more_connections_than_open_files(cache: Path, context: Any) -> None:
    few = 100
    command = [sys.executable, "-m", "distredge", "peer", "--bind", "127.0.0.1:0", "--cache-dir", str(cache)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (few, few)),
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1].decode()
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        early = Someone(context, address)
        deploy(early, cache)
        with ExitStack() as stack:
            for _ in range(few + 20):
                stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
            assert settle(lambda: psutil.Process(process.pid).num_fds() == few, 5)
            assert early.is_answered()
        assert lives(context, address, cache)
        process.terminate()
        assert process.wait(10) == 0


def test_rubbish_before_the_handshake_of_an_encrypted_peer(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    town = Town(tmp_path, cache)
    rng = random.Random(SEED)
    with town.peer("a"), town.peer("b"), town.session() as good:
        (right,) = good.run(None, {"x0": IMAGE})
        for mechanism, first in ((b"CURVE", HELLO), (b"NULL", READY)):
            for way in Wire(town.addresses["a"], rng, mechanism, first).ways:
                way()
                assert np.array_equal(good.run(None, {"x0": IMAGE})[0], right)
        with town.session() as newcomer:
            assert np.array_equal(newcomer.run(None, {"x0": IMAGE})[0], right)
    assert "Traceback" not in caplog.text
