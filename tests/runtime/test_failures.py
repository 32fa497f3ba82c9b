"""What goes wrong: peers that die, hang, never answer, or are of another kind. Each one named, none hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import zmq

from distredge import __version__
from distredge.errors import PeerError, PeerLostError, PeerTimeoutError, ProtocolError
from distredge.graph.importer import load_model
from distredge.plan.compile import compile_plan
from distredge.protocol.messages import VERSION, Hello, Welcome, encode
from distredge.runtime.launcher import LocalPeers
from distredge.runtime.session import InferenceSession
from distredge.runtime.transport import bind_router, is_readable, receive, send
from tests.models import ModelBuilder, chain
from tests.runtime.conftest import wait_until

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 6)).astype("float32")


def hosts_file(path: Path, *addresses: str) -> Path:
    path.write_text(
        "\n".join(f"[provider:host{at}]\naddress = {address}" for at, address in enumerate(addresses))
    )
    return path


@contextmanager
def peers_elsewhere(count: int, cache: Path) -> Iterator[tuple[LocalPeers, list[str]]]:
    """Running peers that a session knows only by address, as those of other hosts."""
    with LocalPeers(count, cache_dir=cache) as peers:
        yield peers, [peer.address.removeprefix("tcp://") for peer in peers.wait_ready()]


# ---------------------------------------------------------------------- death


@pytest.mark.parametrize("which", [0, 2])
def test_a_local_peer_that_is_killed_is_named_at_once(cache: Path, which: int) -> None:
    with InferenceSession(chain(), local_peers=3, policy="equal", recover=False, cache_dir=cache) as session:
        pid = session._resources.processes.pids[which]
        answers = iter(session.stream((IMAGE for _ in range(10**9)), in_flight=4))
        for _ in range(20):
            next(answers)
        os.kill(pid, signal.SIGKILL)
        killed_s = time.monotonic()
        with pytest.raises(PeerLostError, match=f"peer peer{which} .*SIGKILL") as caught:
            for _ in answers:
                pass
        assert time.monotonic() - killed_s < 2
        assert caught.value.peer == f"peer{which}"
        with pytest.raises(PeerLostError, match=f"peer peer{which}"):
            session.run(None, {"x0": IMAGE})


def test_a_peer_that_dies_while_nobody_looks(cache: Path) -> None:
    with InferenceSession(chain(), local_peers=2, policy="equal", cache_dir=cache, recover=False) as session:
        os.kill(session._resources.processes.pids[1], signal.SIGKILL)
        with pytest.raises(PeerLostError, match="peer1"):
            session.run(None, {"x0": IMAGE})


def test_a_peer_elsewhere_that_dies_is_named(cache: Path, tmp_path: Path) -> None:
    with peers_elsewhere(2, cache) as (peers, addresses):
        hosts = hosts_file(tmp_path / "hosts.ini", *addresses)
        with InferenceSession(
            chain(), hosts=hosts, policy="equal", recover=False, cache_dir=cache
        ) as session:
            session.run(None, {"x0": IMAGE})
            os.kill(peers.pids[1], signal.SIGKILL)
            killed_s = time.monotonic()
            with pytest.raises(PeerLostError, match=f"peer host1 at tcp://{addresses[1]}"):
                list(session.stream(IMAGE for _ in range(10**6)))
            assert time.monotonic() - killed_s < 5
        with (
            InferenceSession(
                chain(), hosts=hosts_file(tmp_path / "one.ini", addresses[0]), cache_dir=cache
            ) as session,
        ):
            session.run(None, {"x0": IMAGE})


def test_a_peer_that_hangs_is_named_within_five_seconds(cache: Path) -> None:
    with InferenceSession(chain(), local_peers=2, policy="equal", cache_dir=cache, recover=False) as session:
        session.run(None, {"x0": IMAGE})
        os.kill(session._resources.processes.pids[0], signal.SIGSTOP)
        stopped_s = time.monotonic()
        with pytest.raises(PeerLostError, match="peer0"):
            session.run(None, {"x0": IMAGE})
        assert time.monotonic() - stopped_s < 5


def test_a_peer_that_loses_its_neighbour_says_so(cache: Path) -> None:
    """The requester sees both; only the link between them breaks."""
    with peers_elsewhere(1, cache) as (_, (address,)), FakePeer() as fake:
        model = load_model(chain(), cache_dir=cache)
        from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
        from distredge.runtime.client import Client
        from distredge.runtime.deployment import PeerAddress

        scheme = PartitionScheme((model.graph.cut_points[0],))
        strategy = Strategy(scheme, (SplitDecision((0, 8, 16)), SplitDecision((0, 4, 8))))
        plan = compile_plan(model.graph, strategy, ["real", "fake"], model=model.weights_sha256)
        client = Client([PeerAddress("real", f"tcp://{address}"), PeerAddress("fake", fake.address)])
        try:
            client.connect()
            fake.answers = False
            from distredge.runtime.sizes import _blobs

            blobs = _blobs(model)
            for blob in blobs:
                client._rollout.blob_ready(1, blob.sha256)
            with pytest.raises(PeerError, match="peer real cannot reach fake at"):
                client.deploy(client.lines.add(blobs), plan)
        finally:
            client.close()


# ---------------------------------------------------------------------- no answer, another answer


class FakePeer:
    """Answers hellos as it is told to, and nothing else."""

    def __init__(self, version: str = __version__, header: bytes | None = None) -> None:
        self.context = zmq.Context()
        self.router, self.address = bind_router(self.context, "tcp://127.0.0.1:0")
        self.version, self.header, self.answers = version, header, True
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._over.is_set():
            if self.router.poll(20) and is_readable(self.router):
                sender, message, _ = receive(self.router, routed=True)
                if isinstance(message, Hello) and self.answers:
                    welcome = encode(Welcome(message.session, "fake", self.version, 0.0))
                    send(self.router, self.header or welcome, to=sender)

    def __enter__(self) -> FakePeer:
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self.context.destroy(linger=0)


def test_a_peer_that_is_not_there_is_named(cache: Path, tmp_path: Path) -> None:
    with zmq.Context() as context:
        router, address = bind_router(context, "tcp://127.0.0.1:0")
        router.close(0)
    hosts = hosts_file(tmp_path / "hosts.ini", address.removeprefix("tcp://"))
    start = time.monotonic()
    with pytest.raises(PeerTimeoutError) as caught:
        InferenceSession(chain(), hosts=hosts, timeout_s=0.5, cache_dir=cache)
    assert time.monotonic() - start < 5
    assert caught.value.peer == "host0"
    assert str(caught.value).startswith(f"peer host0 at {address} did not answer within 0.5 s; start it with")


def test_something_else_that_listens_there(cache: Path, tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        hosts = hosts_file(tmp_path / "hosts.ini", f"127.0.0.1:{server.getsockname()[1]}")

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" + b"x" * 100)
                client.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(PeerTimeoutError, match=r"is no DistrEdge peer|did not answer"):
            InferenceSession(chain(), hosts=hosts, timeout_s=0.5, cache_dir=cache)
        thread.join()


def test_a_peer_of_another_version_is_named_with_both(cache: Path, tmp_path: Path) -> None:
    with FakePeer("0.0.7") as fake:
        hosts = hosts_file(tmp_path / "hosts.ini", fake.address.removeprefix("tcp://"))
        with pytest.raises(ProtocolError, match=f"peer host0 .* runs DistrEdge 0.0.7, this is {__version__}"):
            InferenceSession(chain(), hosts=hosts, cache_dir=cache)


def test_a_peer_of_another_protocol_is_named(cache: Path, tmp_path: Path) -> None:
    import msgpack

    with FakePeer(header=msgpack.packb([VERSION + 1, "welcome", 1, "new", "9.0", 0.0, "more"])) as fake:
        hosts = hosts_file(tmp_path / "hosts.ini", fake.address.removeprefix("tcp://"))
        with pytest.raises(ProtocolError, match=r"peer host0 .* speaks another protocol version"):
            InferenceSession(chain(), hosts=hosts, cache_dir=cache)


# ---------------------------------------------------------------------- wrong models


def test_a_part_that_fails_is_one_clear_line(cache: Path) -> None:
    """A Gather whose index comes with the frame: onnxruntime finds out only when it computes."""
    net = ModelBuilder()
    x, at = net.input(1, 3, 16, 6), net.input(1, dtype="int64")
    net.output(net.conv(net.add("Gather", net.conv(x, 4), at, axis=1), 2))
    net.values[at][:] = 0
    with InferenceSession(net.build(), local_peers=2, policy="equal", cache_dir=cache) as session:
        session.run(None, {"x0": IMAGE, "x1": np.array([3])})
        with pytest.raises(PeerError, match=r"peer peer[01] cannot compute task .*indices") as caught:
            session.run(None, {"x0": IMAGE, "x1": np.array([77])})
        assert "\n" not in str(caught.value)


def test_weights_that_change_on_the_way_are_refused(cache: Path, tmp_path: Path) -> None:
    net = ModelBuilder()
    net.output(net.conv(net.input(1, 3, 16, 6), 64, 9))
    model = load_model(net.build(), cache_dir=tmp_path / "own")
    with LocalPeers(1, cache_dir=cache) as peers:
        (peer,) = peers.wait_ready()
        hosts = hosts_file(tmp_path / "hosts.ini", peer.address.removeprefix("tcp://"))
        data = bytearray(model.weights.read_bytes())
        data[-1] ^= 1
        model.weights.write_bytes(data)
        with pytest.raises(PeerError, match=r"peer host0 .*does not have the hash"):
            InferenceSession(model, hosts=hosts, cache_dir=tmp_path / "own")
    assert not list(cache.glob(f"{model.weights_sha256}*"))


# ---------------------------------------------------------------------- whoever started them dies


STREAM = "for _ in session.stream(image for _ in range(10**9)): pass"
PARENT = """
    import sys, time
    import numpy as np
    from distredge.runtime.session import InferenceSession
    from tests.models import chain
    from tests.runtime.conftest import children
    session = InferenceSession(chain(), local_peers=2, policy="equal", cache_dir=sys.argv[1])
    print(*session._resources.processes.pids, flush=True)
    image = np.zeros((1, 3, 16, 6), "float32")
    {then}
"""


def start_parent(cache: Path, then: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    code = textwrap.dedent(PARENT).replace("{then}", then)
    parent = subprocess.Popen([sys.executable, "-c", code, str(cache)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return parent, [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("how", ["busy", "idle", "stopped"])
def test_peers_do_not_outlive_who_started_them(cache: Path, how: str) -> None:
    then = STREAM if how == "busy" else "time.sleep(1000)"
    parent, peers = start_parent(cache, then)
    assert len(peers) == 2
    if how == "stopped":
        for peer in peers:
            peer.suspend()
    parent.kill()
    parent.wait()
    wait_until(lambda: all(is_gone(peer) for peer in peers), 3)
    assert parent.stdout is not None
    parent.stdout.close()


def test_peers_end_with_an_interpreter_that_forgets_them(cache: Path) -> None:
    parent, peers = start_parent(cache, "session.run(None, {'x0': image}); raise SystemExit(7)")
    assert parent.wait(20) == 7
    assert all(is_gone(peer) for peer in peers)
    assert parent.stdout is not None
    parent.stdout.close()


def test_a_session_may_be_made_in_a_thread_that_ends(cache: Path) -> None:
    made: list[InferenceSession] = []
    thread = threading.Thread(
        target=lambda: made.append(InferenceSession(chain(), local_peers=1, policy="equal", cache_dir=cache))
    )
    thread.start()
    thread.join()
    with made[0] as session:
        threading.Event().wait(0.3)  # a child whose life hung on that thread would be gone by now
        session.run(None, {"x0": IMAGE})


def test_a_requester_that_dies_is_forgotten_by_its_peers(cache: Path, tmp_path: Path) -> None:
    with peers_elsewhere(2, cache) as (peers, addresses):
        hosts = hosts_file(tmp_path / "hosts.ini", *addresses)
        code = textwrap.dedent(PARENT).replace("local_peers=2", f"hosts={str(hosts)!r}")
        code = code.replace("*session._resources.processes.pids", "'ready'")
        code = code.replace("{then}", STREAM)
        parent = subprocess.Popen([sys.executable, "-c", code, str(cache)], stdout=subprocess.PIPE, text=True)
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        processes = [psutil.Process(pid) for pid in peers.pids]
        connected = [len(process.net_connections()) for process in processes]
        parent.kill()
        parent.wait()
        parent.stdout.close()
        # The connections to neighbours are made for a session and end with it.
        wait_until(lambda: all(len(p.net_connections()) == 1 for p in processes))
        assert min(connected) > 1
        with InferenceSession(chain(), hosts=hosts, policy="equal", cache_dir=cache) as session:
            session.run(None, {"x0": IMAGE})


def test_a_peer_that_cannot_start_says_why() -> None:
    with (
        LocalPeers(1, threads=-1) as peers,
        pytest.raises(PeerError, match=r"peer peer0 did not start: exit code 2: .*threads"),
    ):
        peers.wait_ready()
    with (
        LocalPeers(1) as peers,
        pytest.raises(PeerTimeoutError, match="peer peer0 did not start within 0 s"),
    ):
        peers.wait_ready(0.0)
