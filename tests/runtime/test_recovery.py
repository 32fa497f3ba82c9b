"""Peers that die, hang or are cut off, and come back: every frame answered once, right and in order."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from distredge.errors import PeerLostError
from distredge.graph.importer import load_model
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.runtime.session import InferenceSession
from tests.models import chain
from tests.runtime.conftest import wait_until
from tests.runtime.test_failures import hosts_file, peers_elsewhere

RNG = np.random.default_rng(0)
IMAGES = [RNG.standard_normal((1, 3, 16, 6)).astype("float32") for _ in range(7)]


@pytest.fixture(scope="module")
def answers(cache: Path) -> list[list[np.ndarray]]:
    """Of each image, split over two peers; every plan of this small model gives these bits."""
    with InferenceSession(chain(), local_peers=2, policy="equal", cache_dir=cache) as session:
        return list(session.stream(IMAGES))


def is_settled(session: InferenceSession) -> bool:
    """Whether the plans for all peers that live, and for each loss, are ready."""
    with session._resources.working() as client:
        client.pump(0.0)
        return session._sizes.latest.line.state.is_settled


def pids(session: InferenceSession) -> tuple[int, ...]:
    return session._resources.processes.pids


class Checked:
    """A stream of images without end, whose answers are compared one by one."""

    def __init__(
        self, session: InferenceSession, answers: list[list[np.ndarray]], in_flight: int = 4
    ) -> None:
        self.answers, self.seen, self.longest_s = answers, 0, 0.0
        self._stream = session.stream((IMAGES[at % 7] for at in count()), in_flight)

    def take(self, frames: int) -> None:
        for _ in range(frames):
            start = time.monotonic()
            (found,) = next(self._stream)
            self.longest_s = max(self.longest_s, time.monotonic() - start)
            assert np.array_equal(found, self.answers[self.seen % 7][0])
            self.seen += 1

    def take_until(self, condition: Callable[[], bool], limit_s: float = 20.0) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            self.take(1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_frames_go_on_without_a_peer_and_with_it_again(
    cache: Path, answers: list, how: signal.Signals
) -> None:
    with InferenceSession(chain(), local_peers=3, policy="equal", cache_dir=cache) as session:
        stream = Checked(session, answers)
        stream.take_until(lambda: is_settled(session))
        pid = pids(session)[1]
        os.kill(pid, how)
        stream.take_until(lambda: session.members == ("peer0", "peer2"))
        if how == signal.SIGSTOP:
            stream.take_until(lambda: is_settled(session))
            os.kill(pid, signal.SIGCONT)
        stream.take_until(lambda: len(session.members) == 3 and is_settled(session))
        assert session.plan.tasks
        assert {task.device for task in session.plan.tasks} == {0, 1, 2}
        assert stream.longest_s < 2
        stream.take(20)


def test_one_after_another_until_one_is_left(cache: Path, answers: list, tmp_path: Path) -> None:
    """Peers elsewhere, which nobody starts again."""
    with peers_elsewhere(3, cache) as (peers, addresses):
        hosts = hosts_file(tmp_path / "hosts.ini", *addresses)
        with InferenceSession(chain(), hosts=hosts, policy="equal", cache_dir=cache) as session:
            stream = Checked(session, answers)
            stream.take(3)
            os.kill(peers.pids[0], signal.SIGKILL)
            stream.take_until(lambda: session.members == ("host1", "host2"))
            os.kill(peers.pids[2], signal.SIGKILL)
            stream.take_until(lambda: session.members == ("host1",))
            stream.take(20)
            os.kill(peers.pids[1], signal.SIGKILL)
            with pytest.raises(PeerLostError, match=r"no peer is left: .*host1 at tcp"):
                stream.take(10**6)
            assert not session._client.lines.frames.open


def test_with_no_peer_the_requester_computes(cache: Path, answers: list, tmp_path: Path) -> None:
    with peers_elsewhere(1, cache) as (peers, addresses):
        hosts = hosts_file(tmp_path / "hosts.ini", *addresses)
        with InferenceSession(chain(), hosts=hosts, alone=True, cache_dir=cache) as session:
            stream = session.stream((IMAGES[at % 7] for at in count()), 3)
            next(stream)
            os.kill(peers.pids[0], signal.SIGKILL)
            for at in range(1, 50):
                (found,) = next(stream)
                np.testing.assert_allclose(found, answers[at % 7][0], rtol=1e-4, atol=1e-5)
            assert session.members == ()


def test_a_peer_that_comes_back_to_its_address(cache: Path, answers: list, tmp_path: Path) -> None:
    with peers_elsewhere(2, cache) as (peers, addresses):
        hosts = hosts_file(tmp_path / "hosts.ini", *addresses)
        with InferenceSession(chain(), hosts=hosts, policy="equal", cache_dir=cache) as session:
            stream = Checked(session, answers)
            stream.take(3)
            os.kill(peers.pids[0], signal.SIGKILL)
            stream.take_until(lambda: session.members == ("host1",))
            command = [sys.executable, "-m", "distredge", "peer", "--bind", addresses[0], "--threads", "1"]
            with subprocess.Popen([*command, "--cache-dir", str(cache)], stdout=subprocess.DEVNULL) as again:
                try:
                    stream.take_until(lambda: len(session.members) == 2 and is_settled(session))
                    assert {task.device for task in session.plan.tasks} == {0, 1}
                    stream.take(10)
                finally:
                    again.terminate()


def test_a_decision_is_in_use_again_when_all_are_back(cache: Path, answers: list) -> None:
    model = load_model(chain(), cache_dir=cache)
    scheme = PartitionScheme((model.graph.cut_points[1],))
    splits = tuple(SplitDecision.from_shares(v.rows, [0.75, 0.25]) for v in find_volumes(model.graph, scheme))
    strategy = Strategy(scheme, splits)
    with InferenceSession(model, local_peers=2, policy="equal", cache_dir=cache) as session:
        session.use(strategy)
        stream = Checked(session, answers)
        stream.take_until(lambda: is_settled(session))
        os.kill(pids(session)[0], signal.SIGKILL)
        stream.take_until(lambda: session.members == ("peer1",))
        assert session.plan.strategy != strategy
        stream.take_until(lambda: len(session.members) == 2 and is_settled(session))
        assert session.plan.strategy == strategy


def test_a_loss_while_nobody_looks(cache: Path, answers: list) -> None:
    with InferenceSession(chain(), local_peers=2, policy="equal", cache_dir=cache) as session:
        os.kill(pids(session)[1], signal.SIGKILL)
        wait_until(lambda: len(session.members) == 1)
        assert np.array_equal(session.run(None, {"x0": IMAGES[0]})[0], answers[0][0])
        wait_until(lambda: len(session.members) == 2)


def test_a_cut_between_two_peers_leaves_one_out(cache: Path, answers: list, tmp_path: Path) -> None:
    """The requester reaches both, but one cannot reach the other: its messages go nowhere."""
    with peers_elsewhere(2, cache) as (_, addresses), Relay(addresses[1]) as relay:
        # The requester is told of a relay, and so is the neighbour; only the neighbour's connection is cut.
        hosts = hosts_file(tmp_path / "hosts.ini", addresses[0], relay.address)
        model = load_model(chain(), cache_dir=cache)
        scheme = PartitionScheme((model.graph.cut_points[1],))
        splits = tuple(
            SplitDecision.from_shares(v.rows, [0.5, 0.5]) for v in find_volumes(model.graph, scheme)
        )
        with InferenceSession(model, hosts=hosts, policy="equal", cache_dir=cache) as session:
            session.use(Strategy(scheme, splits))
            stream = Checked(session, answers)
            stream.take_until(lambda: is_settled(session))
            assert len(relay.clients) == 3  # two of the requester's, one of the neighbour's
            relay.cut(2)
            stream.take_until(lambda: len(session.members) == 1)
            stream.take(20)
            assert session.members in (("host0",), ("host1",))


class Relay:
    """Passes bytes on between its clients and one server; a client can be cut off."""

    def __init__(self, target: str) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._target = (target.partition(":")[0], int(target.partition(":")[2]))
        self.clients: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._open = True
        self._start(self._accept)

    def _start(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if not self._open:
                client.close()
                continue
            server = socket.create_connection(self._target)
            self.clients.append((client, server))
            self._start(self._copy, client, server)
            self._start(self._copy, server, client)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self, number: int) -> None:
        """Cuts a client's connection, and lets no new one in."""
        self._open = False
        for each in self.clients[number]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for pair in self.clients:
            for each in pair:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for pair in self.clients:
            for each in pair:
                each.close()


def test_every_kill_in_a_row_is_survived(cache: Path, answers: list) -> None:
    """Faster than peers come back: losses meet plans that are still being prepared."""
    with InferenceSession(chain(), local_peers=4, policy="equal", cache_dir=cache) as session:
        stream = Checked(session, answers)
        stream.take(3)
        for at in (2, 0, 3):
            os.kill(pids(session)[at], signal.SIGKILL)
            stream.take(40)
        stream.take_until(lambda: len(session.members) == 4 and is_settled(session))
        stream.take(10)
