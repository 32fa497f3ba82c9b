"""Sessions: how they begin, end, and fail."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnx
import pytest

import distredge as de
from distredge.errors import DistrEdgeError, HostsError, InputError, PeerError, PolicyError
from distredge.runtime.session import InferenceSession
from tests.graph.nets import Net
from tests.models import chain
from tests.runtime.conftest import children, wait_until
from tests.runtime.support import RNG, agree, image, whole


def test_progress_is_told(cache: Path) -> None:
    told: list[tuple[str, int, int]] = []
    with InferenceSession(
        chain(), local_peers=2, policy="equal", cache_dir=cache, progress=lambda *args: told.append(args)
    ):
        assert {what for what, _, _ in told} <= {"sending the model, MB", "peers ready"}
        assert all(0 <= done <= of for _, done, of in told)
        assert ("peers ready", 2, 2) in told


def test_a_session_that_nobody_closes_ends_with_its_last_reference(cache: Path) -> None:
    before = len(children())
    session = InferenceSession(chain(), local_peers=1, policy="equal", cache_dir=cache)
    session.run(None, {"x0": image(16)})
    assert len(children()) == before + 1
    del session
    gc.collect()
    wait_until(lambda: len(children()) == before)


def test_a_closed_session_says_so(cache: Path) -> None:
    session = InferenceSession(chain(), local_peers=1, policy="equal", cache_dir=cache)
    stream = session.stream([image(16), image(16)])
    next(stream)
    session.close()
    session.close()
    with pytest.raises(DistrEdgeError, match="closed"):
        session.run(None, {"x0": image(16)})
    with pytest.raises(DistrEdgeError, match="closed"):
        next(stream)


def test_what_cannot_begin_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not both"):
        InferenceSession(chain(), local_peers=1, hosts="hosts.ini")
    with pytest.raises(InputError, match="give a number from 1 to"):
        InferenceSession(chain(), local_peers=0)
    with pytest.raises(PolicyError, match="no policy 'nope'"):
        InferenceSession(chain(), local_peers=1, policy="nope")
    with pytest.raises(de.ModelError, match="no model file"):
        InferenceSession(tmp_path / "none.onnx", local_peers=1)
    with pytest.raises(HostsError):
        InferenceSession(chain(), hosts=tmp_path / "none.ini")
    hosts = tmp_path / "simulated.ini"
    hosts.write_text("[provider:a]\nprofile = synthetic-mobile\n")
    with pytest.raises(HostsError, match="a is simulated"):
        InferenceSession(chain(), hosts=hosts, cache_dir=cache)


def test_connect_reads_the_environment(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTREDGE_HOSTS", raising=False)
    monkeypatch.delenv("DISTREDGE_PEERS", raising=False)
    with pytest.raises(HostsError, match="DISTREDGE_HOSTS"):
        de.connect(chain())
    monkeypatch.setenv("DISTREDGE_PEERS", "1")
    with de.connect(chain(), policy="equal", cache_dir=cache) as session:
        assert session.plan.devices == ("peer0",)


def test_a_frame_that_cannot_be_computed_fails_alone(cache: Path) -> None:
    """onnxruntime refuses an index that is out of range, and goes on; so do we, with frames in flight too."""
    net = Net()
    rows = net.op("Cast", "i", to=onnx.TensorProto.INT64)
    top = net.op("Gather", net.conv("x", 2, 4), rows, axis=2)
    data = net.model({"x": (1, 2, 16, 6), "i": (4,)}, [top])
    pictures = [RNG.standard_normal((1, 2, 16, 6)).astype("float32") for _ in range(4)]
    feeds = [{"x": x, "i": np.full(4, at, np.float32)} for at, x in enumerate(pictures)]
    wrong = {**feeds[0], "i": np.full(4, 99, np.float32)}
    with InferenceSession(data, local_peers=2, policy="equal", cache_dir=cache) as session:
        for feed in feeds:
            with pytest.raises(PeerError, match="cannot compute task"):
                session.run(None, wrong)
            agree(session.run(None, feed), whole(data, feed))
        stream = session.stream([*feeds, wrong, *feeds], in_flight=3)
        for feed in feeds:
            agree(next(stream), whole(data, feed))
        with pytest.raises(PeerError, match="cannot compute task"):
            next(stream)
        for outputs, feed in zip(session.stream(feeds, in_flight=4), feeds, strict=True):
            agree(outputs, whole(data, feed))
