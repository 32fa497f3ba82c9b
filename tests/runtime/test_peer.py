"""One peer process, spoken to as anybody could."""

from __future__ import annotations

import random
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import psutil
import pytest
import zmq

from distredge import __version__
from distredge.errors import ProtocolError
from distredge.graph.importer import load_model
from distredge.plan.compile import compile_plan
from distredge.plan.serde import to_plain
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.protocol.messages import (
    BlobReady,
    Bye,
    Failure,
    Hello,
    Message,
    NeedBlob,
    OfferBlob,
    Ping,
    PlanReady,
    Pong,
    RetirePlan,
    UsePlan,
    Welcome,
    encode,
)
from distredge.runtime.blobs import BlobSending, BlobSource
from distredge.runtime.launcher import LocalPeers
from distredge.runtime.session import InferenceSession
from distredge.runtime.transport import connect_dealer, decode_header, receive, rows_header
from tests.models import chain

ROWS = 16
IMAGE = np.random.default_rng(0).standard_normal((1, 3, ROWS, 6)).astype("float32")


class Someone:
    """A raw connection to a peer."""

    def __init__(self, context: zmq.Context[Any], address: str) -> None:
        self.address = address
        self.session = secrets.randbits(62)
        self.socket = connect_dealer(context, address)

    def say(self, message: Message, payload: bytes | None = None) -> None:
        self.raw(encode(message), *([] if payload is None else [payload]))

    def raw(self, *parts: bytes) -> None:
        self.socket.send_multipart(parts)

    def hear(self, *kinds: type) -> Any:
        """The next message of one of these kinds (all, if none is named), and its payload."""
        while self.socket.poll(10_000):
            _, message, payload = receive(self.socket, routed=False)
            if not kinds or isinstance(message, kinds):
                return message, payload
        raise AssertionError(f"the peer did not answer with {kinds}")

    def is_answered(self) -> bool:
        """Everything said before has been dealt with by the I/O thread, and the peer lives."""
        number = random.getrandbits(30)
        self.say(Ping(self.session, number))
        while self.hear(Pong)[0].number != number:
            pass
        return True


@pytest.fixture(scope="module")
def peers(cache: Path) -> Iterator[LocalPeers]:
    with LocalPeers(1, cache_dir=cache) as peers:
        peers.wait_ready()
        yield peers


@pytest.fixture
def someone(peers: LocalPeers) -> Iterator[Any]:
    with zmq.Context() as context:
        (peer,) = peers.wait_ready()
        yield lambda: Someone(context, peer.address)
        context.destroy(linger=0)


def deploy(who: Someone, cache: Path, epoch: int = 0) -> Any:
    """One convolution network, whole, on this one peer."""
    model = load_model(chain(), cache_dir=cache)
    strategy = Strategy(PartitionScheme(), (SplitDecision((0, 8)),))
    plan = compile_plan(model.graph, strategy, ["peer0"], model=model.weights_sha256)
    for source in (
        BlobSource(model.weights_sha256, model.weights),
        BlobSource(model.graph.digest, model.onnx),
    ):
        who.say(OfferBlob(who.session, source.sha256, source.total_bytes))
        sending = None
        while True:
            message, _ = who.hear(NeedBlob, BlobReady)
            if isinstance(message, BlobReady):
                break
            sending = sending or BlobSending(source)
            for chunk, data in sending.credit(who.session, message.offset):
                who.say(chunk, bytes(data))
    who.say(UsePlan(who.session, epoch, 0, (who.address,), ("",)), msgpack.packb(to_plain(plan)))
    ready, _ = who.hear(PlanReady, Failure)
    assert ready == PlanReady(who.session, epoch, 0)
    return plan


def ask(who: Someone, plan: Any, frame: int, epoch: int = 0, session: int | None = None) -> None:
    (transfer,) = [t for t in plan.transfers if t.source == -1]
    header = rows_header(
        session or who.session, epoch, frame, transfer.id, transfer.tensor, *transfer.rows, -1, 0.0
    )
    who.raw(header, IMAGE.tobytes())


def answer(who: Someone) -> int:
    fields, payload = who.hear(list)
    assert payload is not None
    return int(fields[2])


def test_a_peer_introduces_itself(someone: Any) -> None:
    who = someone()
    who.say(Hello(who.session, "test", "0.0"))
    welcome, _ = who.hear()
    assert isinstance(welcome, Welcome)
    assert (welcome.session, welcome.name, welcome.version) == (who.session, "peer0", __version__)


def test_a_frame_by_hand(someone: Any, cache: Path) -> None:
    who = someone()
    plan = deploy(who, cache)
    ask(who, plan, 0)
    assert answer(who) == 0
    ask(who, plan, 0)  # again: it is over
    ask(who, plan, 1)
    assert answer(who) == 1
    who.say(RetirePlan(who.session, 0))
    ask(who, plan, 2)
    assert who.is_answered()
    who.say(Bye(who.session))
    assert who.is_answered()


def test_sessions_and_epochs_are_told_apart(someone: Any, cache: Path) -> None:
    first, second = someone(), someone()
    plan = deploy(first, cache, epoch=0)
    deploy(first, cache, epoch=1)
    deploy(second, cache, epoch=0)
    for frame in range(5):
        ask(first, plan, frame, epoch=frame % 2)
        ask(second, plan, 100 + frame)
    assert sorted(answer(first) for _ in range(5)) == list(range(5))
    assert sorted(answer(second) for _ in range(5)) == list(range(100, 105))
    first.say(Bye(first.session))
    ask(second, plan, 7)
    assert answer(second) == 7


def test_a_session_obeys_its_own_requester_only(someone: Any, cache: Path) -> None:
    owner, other = someone(), someone()
    plan = deploy(owner, cache)
    other.say(Bye(owner.session))
    other.say(RetirePlan(owner.session, 0))
    other.say(UsePlan(owner.session, 1, 0, (owner.address,), ("",)), b"")
    assert other.is_answered()
    ask(owner, plan, 3)
    assert answer(owner) == 3


def test_rows_for_nobody_are_answered_with_a_failure(someone: Any, cache: Path) -> None:
    who = someone()
    plan = deploy(who, cache)
    for session, epoch in ((who.session, 5), (12345, 0)):
        ask(who, plan, 0, epoch, session)
        failure, _ = who.hear(Failure)
        assert "does not know this session or plan" in failure.text


def test_early_rows_are_kept(someone: Any, cache: Path) -> None:
    who = someone()
    plan = deploy(who, cache)
    who.say(UsePlan(who.session, 1, 0, (who.address,), ("",)), msgpack.packb(to_plain(plan)))
    ask(who, plan, 9, epoch=1)
    assert answer(who) == 9


def test_a_plan_without_its_model_is_refused(someone: Any, cache: Path) -> None:
    who = someone()
    plan = deploy(who, cache)
    from dataclasses import replace

    for broken, text in (
        (to_plain(replace(plan, graph="0" * 64)), "the plan's model was not sent before it"),
        (to_plain(replace(plan, graph="../x")), "a blob's name is not a SHA-256"),
        (to_plain(replace(plan, transfers=plan.transfers[:1])), "cannot use the plan"),
        (to_plain(plan)[:-1], "fields were expected"),
        ([], "fields were expected"),
    ):
        epoch = random.getrandbits(20) + 10
        who.say(UsePlan(who.session, epoch, 0, (who.address,), ("",)), msgpack.packb(broken))
        failure, _ = who.hear(Failure)
        assert text in failure.text
        assert "\n" not in failure.text
    who.say(UsePlan(who.session, 3, 4, (who.address,), ("",)), msgpack.packb(to_plain(plan)))
    assert "does not fit its devices" in who.hear(Failure)[0].text


def test_nothing_that_is_sent_ends_a_peer(peers: LocalPeers, someone: Any, cache: Path) -> None:
    who = someone()
    plan = deploy(who, cache)
    rng = random.Random(5)
    (transfer,) = [t for t in plan.transfers if t.source == -1]
    good = rows_header(who.session, 0, 0, transfer.id, transfer.tensor, *transfer.rows, -1, 0.0)
    headers = [
        good,
        encode(Hello(1, "x", "y")),
        encode(OfferBlob(who.session, "0" * 64, 10)),
        encode(UsePlan(who.session, 77, 0, (who.address,), ("",))),
        encode(Ping(1, 1)),
        encode(Bye(77)),
    ]
    for _ in range(3000):
        header = bytearray(rng.choice(headers))
        for _ in range(rng.randint(0, 3)):
            header[rng.randrange(len(header))] = rng.randrange(256)
        if rng.random() < 0.2:
            del header[rng.randrange(len(header)) :]
        payloads = [rng.randbytes(rng.randrange(2000)) for _ in range(rng.choice([0, 1, 1, 1, 2]))]
        who.raw(bytes(header), *payloads)
    for wrong in (
        (transfer.id, transfer.tensor, 0, ROWS - 1, -1),
        (transfer.id, "other", 0, ROWS, -1),
        (transfer.id, transfer.tensor, 0, ROWS, 0),
        (99, transfer.tensor, 0, ROWS, -1),
        (-1, transfer.tensor, 0, ROWS, -1),
    ):
        who.raw(rows_header(who.session, 0, 1, *wrong, 0.0), IMAGE.tobytes())
    who.raw(rows_header(who.session, 0, 1, transfer.id, transfer.tensor, *transfer.rows, -1, 0.0), b"short")
    who.raw(rows_header(who.session, 0, 1, transfer.id, transfer.tensor, *transfer.rows, -1, 0.0))
    assert who.is_answered()
    fresh = someone()
    plan = deploy(fresh, cache)
    ask(fresh, plan, 1)
    assert answer(fresh) == 1
    assert not peers.endings()
    for process in peers._processes:
        process.stderr.seek(0)
        assert process.stderr.read() == b""  # neither a traceback nor a warning


def test_sockets_and_memory_of_sessions_are_given_back(
    peers: LocalPeers, cache: Path, tmp_path: Path
) -> None:
    (peer,) = peers.wait_ready()
    hosts = tmp_path / "hosts.ini"
    hosts.write_text(f"[provider:a]\naddress = {peer.address.removeprefix('tcp://')}\n")
    process = psutil.Process(peers.pids[0])
    counts = []
    for _ in range(4):
        with InferenceSession(chain(), hosts=hosts, policy="equal", cache_dir=cache) as session:
            session.run(None, {"x0": IMAGE})
        counts.append((process.num_fds(), process.num_threads()))
    assert max(counts[1:]) <= (counts[0][0] + 2, counts[0][1])  # two connections may still be closing


def test_the_command(cache: Path) -> None:
    command = [sys.executable, "-m", "distredge", "peer", "--bind", "127.0.0.1:*", "--cache-dir", str(cache)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as peer:
        assert peer.stdout is not None
        word, name, address = peer.stdout.readline().split()
        assert (word, name.rpartition(":")[2]) == ("ready", address.rpartition(":")[2])
        taken = subprocess.run([*command[:4], "--bind", address], capture_output=True, text=True, timeout=60)
        assert taken.returncode == 2
        assert taken.stderr.startswith(f"distredge: error: {address} is in use;")
        assert taken.stderr.count("\n") == 1
        peer.send_signal(signal.SIGTERM)
        assert peer.wait(10) == 0
        assert peer.stderr is not None
        assert peer.stderr.read() == ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as peer:
        assert peer.stdout is not None
        peer.stdout.readline()
        peer.send_signal(signal.SIGINT)
        assert peer.wait(10) == 130
        assert peer.stderr is not None
        assert peer.stderr.read() == ""


def test_headers_may_be_anything() -> None:
    """The decoder alone, faster than over a socket."""
    rng = random.Random(1)
    good = rows_header(1, 2, 3, 4, "conv", 0, 8, -1, 1.5)
    for _ in range(20_000):
        header = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            header[rng.randrange(len(header))] = rng.randrange(256)
        with suppress(ProtocolError):
            decode_header(bytes(header))
