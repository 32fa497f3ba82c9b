"""What a peer keeps for somebody is limited: each limit is reached here, with small numbers in its place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq
import zstandard

from distredge.errors import ProtocolError, StrategyError
from distredge.graph.importer import Model, load_model
from distredge.plan.compile import compile_plan
from distredge.plan.execution import REQUESTER, ExecutionPlan, TensorInfo
from distredge.plan.serde import to_plain
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.protocol.messages import (
    HEADER_LIMIT,
    PLAN_LIMIT,
    VERSION,
    BlobChunk,
    Failure,
    NeedBlob,
    OfferBlob,
    Ping,
    PlanReady,
    UsePlan,
    encode,
)
from distredge.runtime import blobs, builder, rejections, tenant, transport
from distredge.runtime.blobs import BlobStore
from distredge.runtime.engine import ALL, from_payload
from distredge.runtime.peer import Peer, PeerSettings
from distredge.runtime.transport import rows_header
from tests.models import ModelBuilder, chain
from tests.runtime.conftest import wait_until
from tests.runtime.test_failures import FakePeer
from tests.runtime.test_peer import IMAGE, Someone, answer, ask, deploy


@contextmanager
def running(cache: Path) -> Iterator[Peer]:
    """A peer in a thread of this process."""
    made = Peer(PeerSettings("tcp://127.0.0.1:0", "peer0", 1, cache_dir=cache))
    thread = threading.Thread(target=made.serve)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join()
        made.close()


@pytest.fixture
def someone() -> Iterator[Callable[[str], Someone]]:
    with zmq.Context() as context:
        yield lambda address: Someone(context, address)
        context.destroy(linger=0)


def whole_plan(model: Model) -> ExecutionPlan:
    (volume,) = find_volumes(model.graph, PartitionScheme())
    strategy = Strategy(PartitionScheme(), (SplitDecision((0, volume.rows)),))
    return compile_plan(model.graph, strategy, ["peer0"], model=model.weights_sha256)


def use_plan(who: Someone, plan: ExecutionPlan, *addresses: str, epoch: int = 0) -> None:
    message = UsePlan(who.session, epoch, 0, addresses, ("",) * len(addresses))
    who.say(message, msgpack.packb(to_plain(plan)))


def reasons(made: Peer, text: str) -> int:
    return sum(count for reason, count in made.rejected.items() if text in reason)


def test_every_bad_message_is_counted_with_a_reason(cache: Path, someone: Any) -> None:
    with running(cache) as made:
        who = someone(made.address)
        plan = deploy(who, cache)
        sent = next(t for t in plan.transfers if t.source == REQUESTER)
        rows = (who.session, 0, 1, sent.id, sent.tensor, *sent.rows, -1, 0.0)
        bomb = zstandard.ZstdCompressor().compress(bytes(1 << 28))
        bad = {
            "too short or too long": [(b"",), (b"\x90" * (HEADER_LIMIT + 1),)],
            "more than two parts": [(encode(Ping(1, 1)), b"", b"")],
            "not a msgpack message": [(b"\xc1\xc1",), (b"\xdd\xff\xff\xff\xff",), (b"\x91" * 2000,)],
            "protocol version": [(msgpack.packb([0, "ping", 1, 1]),), (msgpack.packb(["1", "ping", 1, 1]),)],
            "unknown message kind": [
                (msgpack.packb([VERSION, "exec", "ls"]),),
                (msgpack.packb([VERSION, None]),),
            ],
            "fields of wrong types": [(rows_header(1, 0, 0, "0", "x", 0, 1, -1, 0.0), b"")],
            "was expected": [
                (msgpack.packb([VERSION, "ping", "1", 1]),),
                (msgpack.packb([VERSION, "bye", None]),),
            ],
            "a peer is not told": [(msgpack.packb([VERSION, "pong", 1, 1, 1.0]),)],
            "rows for no plan": [(rows_header(9, 0, 0, 0, "x", 0, 1, -1, 0.0), b"")],
            "rows without a payload": [(rows_header(9, 0, 0, 0, "x", 0, 1, -1, 0.0),)],
            "no transfer of the plan": [(rows_header(who.session, 0, 0, 9, "x", 0, 1, -1, 0.0), b"")],
            "not what the plan says": [
                (rows_header(*rows, coding=coding), b"") for coding in ("int8", "zip")
            ],
            "would not unpack to their size": [(rows_header(*rows, coding="lossless"), bomb)],
            "a chunk without": [(encode(BlobChunk(who.session, "0" * 64, 0, 9)), bytes(5 << 20))],
            "is no address": [(encode(UsePlan(who.session, 7, 0, ("inproc://zeromq.zap.01",), ("",))), b"x")],
            "as many keys": [(encode(UsePlan(who.session, 7, 0, (made.address,), ())), b"x")],
            "plan's size": [(encode(UsePlan(who.session, 7, 0, (), ())), bytes(PLAN_LIMIT + 1))],
        }
        for text, messages in bad.items():
            before = sum(made.rejected.values()), reasons(made, text)
            for parts in messages:
                who.raw(*parts)
            assert who.is_answered()
            after = sum(made.rejected.values()), reasons(made, text)
            wanted = len(messages)
            assert (after[0] - before[0], after[1] - before[1]) == (wanted, wanted), (text, made.rejected)


def test_reasons_do_not_fill_memory(cache: Path, someone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejections, "REASONS_LIMIT", 5)
    with running(cache) as made:
        who = someone(made.address)
        for number in range(50):
            who.raw(msgpack.packb([VERSION, f"kind {number}"]))
        assert who.is_answered()
        assert len(made.rejected) == 6
        assert made.rejected["others"] == 45


def test_one_connection_cannot_take_all_sessions(cache: Path, someone: Any) -> None:
    with running(cache) as made:
        greedy, other = someone(made.address), someone(made.address)
        for session in range(100):
            greedy.say(OfferBlob(session, "0" * 64, 10))
        assert greedy.is_answered()
        assert len(made._tenants) == 1
        assert reasons(made, "a connection speaks for one session") == 99
        plan = deploy(other, cache)
        ask(other, plan, 1)
        assert answer(other) == 1


def test_rows_that_are_kept_are_limited(cache: Path, someone: Any) -> None:
    """Frames of which a neighbour's rows never come pile up."""
    with running(cache) as made, FakePeer() as silent:
        who = someone(made.address)
        deploy(who, cache)
        model = load_model(chain(), cache_dir=cache)
        scheme = PartitionScheme((model.graph.cut_points[0],))
        strategy = Strategy(scheme, (SplitDecision((0, 8, 16)), SplitDecision((0, 4, 8))))
        plan = compile_plan(model.graph, strategy, ["peer0", "silent"], model=model.weights_sha256)
        use_plan(who, plan, made.address, silent.address, epoch=1)
        assert who.hear(PlanReady, Failure)[0] == PlanReady(who.session, 1, 0)
        (transfer,) = [t for t in plan.transfers if (t.source, t.target) == (-1, 0)]
        payload = bytes(plan.transfer_bytes(transfer))
        made._plans.runner.limit_bytes = 100 * len(payload)

        def send(frame: int) -> None:
            fields = (frame, transfer.id, transfer.tensor, *transfer.rows, -1, 0.0)
            who.raw(rows_header(who.session, 1, *fields), payload)

        for frame in range(5):
            send(frame)
        assert who.is_answered()
        assert 5 * len(payload) <= made._plans.runner.kept_bytes <= 50 * len(payload)
        assert not made.rejected
        for frame in range(5, 60):
            send(frame)
        assert "which is the limit; fewer frames at once" in who.hear(Failure)[0].text
        assert who.is_answered()
        assert made._plans.runner.kept_bytes <= 50 * len(payload)
        other = someone(made.address)
        plan = deploy(other, cache)
        ask(other, plan, 1)
        assert answer(other) == 1
        made._forget(made._tenants[who.session])
        wait_until(lambda: made._plans.runner.kept_bytes == 0)


def test_a_plan_whose_frames_are_too_large_takes_no_memory(cache: Path, someone: Any) -> None:
    with running(cache) as made:
        who = someone(made.address)
        plan = deploy(who, cache)
        name = plan.inputs[0]
        info = plan.tensors[name]
        shape = (1, 1 << 40, *info.shape[2:])
        huge = replace(plan, tensors={**plan.tensors, name: replace(info, shape=shape)})
        use_plan(who, huge, made.address, epoch=1)
        assert "cannot use the plan: a frame takes" in who.hear(Failure)[0].text
        odd = replace(plan, tensors={**plan.tensors, name: replace(info, dtype="int3")})
        use_plan(who, odd, made.address, epoch=2)
        assert "cannot use the plan" in who.hear(Failure)[0].text
        assert who.is_answered()


def test_what_waits_to_be_prepared_is_limited(
    cache: Path, someone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "PREPARE_BYTES", 1_000_000)
    with running(cache) as made:
        who, busy = someone(made.address), threading.Event()
        who.say(OfferBlob(who.session, "0" * 64, 10**7))
        who.hear(NeedBlob)
        made._plans.builder.thread.submit(busy.wait)
        for _ in range(40):
            who.say(BlobChunk(who.session, "0" * 64, 0, 10**7), bytes(100_000))
        assert who.is_answered()
        assert reasons(made, "more was sent than can be prepared") == 30
        assert made._tenants[who.session].queued_bytes == 1_000_000
        busy.set()
        wait_until(lambda: made._tenants[who.session].queued_bytes == 0)


def test_blobs_on_their_way_are_limited(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    for number in range(blobs.INCOMING_LIMIT):
        assert isinstance(store.offer(1, OfferBlob(1, f"{number:064x}", 10))[0][1], NeedBlob)
    with pytest.raises(ProtocolError, match="too many blobs"):
        store.offer(1, OfferBlob(1, "f" * 64, 10))
    assert isinstance(store.offer(2, OfferBlob(2, "f" * 64, 10))[0][1], NeedBlob)
    store.close()


def test_the_disk_is_not_promised_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = blobs.SPARE_BYTES + 1000
    monkeypatch.setattr(blobs.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free}))
    store = BlobStore(tmp_path)
    assert isinstance(store.offer(1, OfferBlob(1, "0" * 64, 600))[0][1], NeedBlob)
    failure = store.offer(1, OfferBlob(1, "1" * 64, 600))[0][1]
    assert isinstance(failure, Failure)
    assert "no room for 600 bytes" in failure.text
    store.close()


def test_a_requester_that_takes_no_answers_is_given_up(
    cache: Path, someone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "QUEUE_LIMIT", 2)
    monkeypatch.setattr(tenant, "WAITING_BYTES", 2_000_000)
    net = ModelBuilder()
    net.output(net.conv(net.input(1, 3, 128, 128), 16))
    model = load_model(net.build(), cache_dir=cache)
    plan = whole_plan(model)
    with running(cache) as made:
        who = someone(made.address)
        for file, sha256 in ((model.weights, model.weights_sha256), (None, model.graph.digest)):
            content = model.onnx if file is None else file.read_bytes()
            (cache / f"{sha256}.weights").write_bytes(content)
        use_plan(who, plan, made.address)
        assert isinstance(who.hear(PlanReady, Failure)[0], PlanReady)
        (transfer,) = [t for t in plan.transfers if t.source == -1]
        image = np.zeros((1, 3, 128, 128), "float32").tobytes()
        for frame in range(60):
            if not who.socket.poll(1000, zmq.POLLOUT):
                break
            fields = (who.session, 0, frame, transfer.id, transfer.tensor, *transfer.rows, -1, 0.0)
            who.raw(rows_header(*fields), image)
        wait_until(lambda: not made._tenants)


def test_loose_payloads() -> None:
    loose = TensorInfo("float32", (2, 3), None, dynamic=True)
    for shape in ([0, 2**62], [0] * 2, [2**40, 2**40]):
        for data in (b"", b"1234"):
            if shape != [0, 0] or data:
                with pytest.raises(ProtocolError):
                    from_payload(msgpack.packb(["float32", shape, data]), loose, ALL)
    for kind in ("float64", "object", "V99", ["float32"], None):
        with pytest.raises(ProtocolError, match="came as"):
            from_payload(msgpack.packb([kind, [2], b"12345678"]), loose, ALL)
    with pytest.raises(ProtocolError, match="strings were expected"):
        from_payload(msgpack.packb([["a"], 1]), TensorInfo("object", (2,), None), ALL)


def test_a_plan_says_how_large_its_frames_are(cache: Path) -> None:
    from distredge.runtime.compute import DutyCycle
    from distredge.runtime.engine import PartSessions
    from distredge.runtime.hosted import HostedPlan

    model = load_model(chain(), cache_dir=cache)
    hosted = HostedPlan(1, 0, 0, ["x"], [""], None, DutyCycle())  # type: ignore[arg-type]
    sessions = PartSessions(model.onnx, model.weights.parent)
    with pytest.raises(StrategyError, match="a frame takes 0 MB here, and 0 MB are the limit"):
        hosted.build(whole_plan(model), sessions, IMAGE.nbytes)
    hosted.build(whole_plan(model), sessions, 100 * IMAGE.nbytes)
