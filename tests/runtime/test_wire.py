"""Coding over real sockets: what users see of it, and that peers pack when they hear that links are slow."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distredge.cli import main
from distredge.errors import InputError
from distredge.graph import zoo
from distredge.plan.execution import REQUESTER
from distredge.runtime import hosted, rollout
from distredge.runtime.launcher import LocalPeers
from distredge.runtime.outgoing import REPORTS
from distredge.runtime.peer import Peer, PeerSettings
from distredge.runtime.reference import WholeModel, difference, random_feed
from distredge.runtime.session import InferenceSession


@cache
def source() -> bytes:
    model: bytes = zoo.get("squeezenet").build().SerializeToString()
    return model


@cache
def expected() -> list[Any]:
    return WholeModel(source()).run(feed())


def feed() -> dict[str, Any]:
    return random_feed({"data_0": ((1, 3, 224, 224), "float32")}, 0)


@pytest.fixture(scope="module")
def peers() -> Iterator[LocalPeers]:
    with LocalPeers(2) as started:
        yield started


def open_session(peers: LocalPeers, **settings: Any) -> InferenceSession:
    return InferenceSession(source(), hosts=peers.cluster, policy="equal", **settings)


def sent_bytes(session: InferenceSession) -> int:
    """Of one frame, between peers."""
    session.trace()
    session.run(None, feed())
    named = {t.id for t in session.plan.transfers if REQUESTER not in (t.source, t.target)}
    return sum(each.bytes for each in session.trace() if each.what == "transfer" and each.id in named)


@pytest.fixture
def distant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two peers in threads of this process that take the loopback for a network; their hosts file."""
    for module in (hosted, rollout):
        monkeypatch.setattr(module, "is_loopback", lambda address: False)
    made = [Peer(PeerSettings("tcp://127.0.0.1:0", f"peer{at}", 1)) for at in range(2)]
    threads = [threading.Thread(target=peer.serve) for peer in made]
    for thread in threads:
        thread.start()
    lines = [f"[provider:{peer.name}]\naddress = {peer.address.removeprefix('tcp://')}\n" for peer in made]
    (tmp_path / "hosts.ini").write_text("".join(lines))
    yield tmp_path / "hosts.ini"
    for peer, thread in zip(made, threads, strict=True):
        peer.stop()
        thread.join()
        peer.close()


def test_peers_pack_when_they_hear_that_a_link_is_slow(distant: Path) -> None:
    with InferenceSession(source(), hosts=distant, policy="equal") as session:
        plain, before = session.run(None, feed()), sent_bytes(session)
        client = session._client
        (deployment,) = [d for d in client._rollout.deployments.values() if d.plan is session.plan]
        for _ in range(REPORTS):
            client._rollout.take_transits(0), client._rollout.take_transits(1)
            for transfer in session.plan.transfers:
                deployment.arrived(transfer.id, 5.0)
            client._send_pings()
        session.run(None, feed())
        assert sent_bytes(session) < 0.8 * before
        packed = session.run(None, feed())
        assert [array.tobytes() for array in packed] == [array.tobytes() for array in plain]


@pytest.mark.parametrize(("wire", "error"), [("raw", 3e-5), ("fp16", 2e-3), ("int8", 5e-2)])
def test_answers_and_bytes(peers: LocalPeers, wire: str, error: float) -> None:
    with open_session(peers, wire=wire) as session:
        outputs = session.run(None, feed())
        found = difference(outputs, expected())  # infinite where dtypes differ
        assert found.relative < error
        assert (found.relative > 1e-5) == (wire != "raw")
        between = [t for t in session.plan.transfers if REQUESTER not in (t.source, t.target)]
        assert sent_bytes(session) == sum(map(session.plan.sent_bytes, between))


def test_nothing_is_packed_within_a_machine(peers: LocalPeers) -> None:
    with open_session(peers) as session:
        (deployment,) = session._client._rollout.deployments.values()
        assert {t.coding for t in session.plan.transfers} == {"lossless"}
        assert not deployment.outgoing.worth


def test_a_wire_that_is_none(peers: LocalPeers) -> None:
    with pytest.raises(InputError, match="wire is 'zip'; it may be exact, raw, fp16 or int8"):
        open_session(peers, wire="zip")


def test_a_plan_keeps_its_wire(peers: LocalPeers) -> None:
    with open_session(peers, wire="fp16") as session:
        plan = session.plan
    with open_session(peers, plan=plan) as session:
        assert session.wire == session.plan.wire == "fp16"
    with pytest.raises(InputError, match="the plan was made for the wire fp16, not int8"):
        open_session(peers, plan=plan, wire="int8")


def test_the_command_reports_what_rounding_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, image = tmp_path / "m.onnx", tmp_path / "x.npy"
    model.write_bytes(source())
    np.save(image, feed()["data_0"])
    words = [str(model), "--input", str(image), "--wire", "int8"]
    assert main(["run", *words, "--frames", "1"]) == 0
    assert "on the wire int8, against onnxruntime: largest error" in capsys.readouterr().out
    assert main(["verify", *words, "--strategies", "2"]) == 0
    assert "(tolerance 0.2); the highest class agrees in 100.0% of answers" in capsys.readouterr().out
    np.save(image, np.zeros((1, 3, 8, 8), np.float32))
    assert main(["verify", *words]) == 2
    error = capsys.readouterr().err
    assert "input 'data_0'" in error
    assert error.count("\n") == 1
