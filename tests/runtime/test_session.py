"""`InferenceSession` over real local peers."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import distredge as de
from distredge.errors import DistrEdgeError, HostsError, InputError, PeerError, PolicyError, StrategyError
from distredge.graph.importer import load_model
from distredge.plan.compile import compile_plan
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.runtime.session import InferenceSession
from tests.graph.nets import Net
from tests.models import ModelBuilder, branches, chain, excited
from tests.runtime.conftest import children, wait_until
from tests.runtime.support import RNG, agree, image, whole


def open_model() -> bytes:
    """A model of which batch, rows and columns are open."""
    model = onnx_model(branches())
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for at, name in ((0, "batch"), (2, "rows"), (3, "columns")):
        dims[at].dim_param = name
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return model.SerializeToString()


def onnx_model(data: bytes):
    return onnx.load_model_from_string(data)


# ---------------------------------------------------------------------- as onnxruntime's


def test_inputs_and_outputs_are_described_as_onnxruntime_does(session: InferenceSession) -> None:
    reference = onnxruntime.InferenceSession(branches(), providers=["CPUExecutionProvider"])
    for own, other in (
        (session.get_inputs(), reference.get_inputs()),
        (session.get_outputs(), reference.get_outputs()),
    ):
        assert [(a.name, a.type, a.shape) for a in own] == [(b.name, b.type, b.shape) for b in other]


def test_output_shapes_that_the_file_leaves_out_are_inferred(cache: Path) -> None:
    reference = onnxruntime.InferenceSession(open_model(), providers=["CPUExecutionProvider"])
    with InferenceSession(open_model(), local_peers=1, cache_dir=cache) as session:
        assert session.get_outputs()[0].shape[0] == "batch"
        assert [a.shape for a in session.get_outputs()] == [b.shape for b in reference.get_outputs()]


def test_run_equals_the_whole_model(session: InferenceSession) -> None:
    feed = {"x0": image()}
    outputs = session.run(None, feed)
    agree(outputs, whole(branches(), feed))
    assert all(output.flags.writeable and output.flags.owndata for output in outputs)
    assert len(session.plan.tasks) >= 3


def test_run_gives_the_outputs_that_are_named(session: InferenceSession) -> None:
    feed = {"x0": image()}
    names = [output.name for output in session.get_outputs()]
    both = session.run(None, feed)
    (second,) = session.run([names[1]], feed)
    np.testing.assert_array_equal(second, both[1])
    swapped = session.run(names[::-1], feed)
    np.testing.assert_array_equal(swapped[0], both[1])
    assert len(session.run([], feed)) == len(both)
    with pytest.raises(InputError, match="no output 'nope'"):
        session.run(["nope"], feed)


def test_a_list_takes_the_dtype_of_its_input(session: InferenceSession) -> None:
    feed = {"x0": image()}
    listed = session.run(None, {"x0": feed["x0"].tolist()}, None)
    np.testing.assert_array_equal(listed[0], session.run(None, feed)[0])


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({}, "input 'x0' is missing"),
        ({"y": image()}, "the model has no input 'y'; its inputs are x0"),
        ({"x0": image(), "y": image()}, "the model has no input 'y'; its inputs are x0"),
        ({"x0": image().astype("float64")}, "input 'x0' has dtype float64, the model takes float32"),
        ({"x0": image(21)}, "input 'x0' has shape 1x3x21x6, the model takes 1x3x20x6"),
        ({"x0": image()[0]}, "input 'x0' has shape 3x20x6, the model takes 1x3x20x6"),
        ({"x0": image()[:, :, :0]}, "input 'x0' has shape 1x3x0x6, the model takes 1x3x20x6"),
        ({"x0": [[1.0], [1.0, 2.0]]}, "input 'x0' is a list that makes no array of float32"),
        ({"x0": "text"}, "input 'x0' has dtype <U4, the model takes float32"),
    ],
)
def test_a_wrong_feed_is_one_clear_line(session: InferenceSession, feed: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        session.run(None, feed)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    agree(session.run(None, {"x0": (x := image())}), whole(branches(), {"x0": x}))


def test_an_input_that_is_not_contiguous(session: InferenceSession) -> None:
    x = np.asfortranarray(image())
    agree(session.run(None, {"x0": x}), whole(branches(), {"x0": x}))


# ---------------------------------------------------------------------- measuring


def test_the_trace_tells_what_happened(session: InferenceSession) -> None:
    session.trace()
    session.run(None, {"x0": image()})
    activities = session.trace()
    plan = session.plan
    frame = session.frame_times[-1].frame
    of_frame = [a for a in activities if a.frame == frame]
    runs = [a for a in of_frame if a.what == "run"]
    transfers = [a for a in of_frame if a.what == "transfer"]
    assert sorted(a.id for a in runs) == [task.id for task in plan.tasks]
    assert sorted(a.id for a in transfers) == [transfer.id for transfer in plan.transfers]
    (around,) = [a for a in of_frame if a.what == "frame"]
    for activity in of_frame:
        assert around.start_s - 1e-3 <= activity.start_s <= activity.end_s <= around.end_s + 1e-3
    for run in runs:
        assert run.peer == plan.devices[plan.tasks[run.id].device]
        arrivals = [p.transfer for i in plan.tasks[run.id].inputs for p in i.pieces if p.transfer >= 0]
        assert all(t.end_s <= run.start_s + 1e-4 for t in transfers if t.id in arrivals)
    assert all(t.bytes == plan.transfer_bytes(plan.transfers[t.id]) for t in transfers)
    assert session.trace() == []


# ---------------------------------------------------------------------- other models, sizes, plans


def test_new_sizes_get_new_plans(cache: Path) -> None:
    model = open_model()
    with InferenceSession(model, local_peers=2, cache_dir=cache, sizes_kept=4) as session:
        assert session.get_inputs()[0].shape == ["batch", 3, "rows", "columns"]
        with pytest.raises(InputError, match="input shape"):
            _ = session.plan
        sizes = [(1, 20, 6), (2, 13, 6), (1, 20, 9), (1, 31, 7), (1, 8, 6), (1, 20, 6)]
        for batch, rows, columns in sizes:
            x = RNG.standard_normal((batch, 3, rows, columns)).astype("float32")
            agree(session.run(None, {"x0": x}), whole(model, {"x0": x}))
        assert len(session._sizes._sizes) <= 4
        mixed = [RNG.standard_normal((1, 3, rows, 6)).astype("float32") for rows in (8, 20, 8, 20, 11)]
        for x, outputs in zip(mixed, session.stream(mixed, in_flight=4), strict=True):
            agree(outputs, whole(model, {"x0": x}))


def test_reductions_tails_and_more_peers_than_rows(cache: Path) -> None:
    model = excited(rows=3)
    with InferenceSession(model, local_peers=4, policy="equal", cache_dir=cache) as session:
        x = image(3)
        agree(session.run(None, {"x0": x}), whole(model, {"x0": x}))


def test_two_inputs_one_of_them_an_output_and_a_scalar(cache: Path) -> None:
    net = ModelBuilder()
    x, y = net.input(1, 3, 12, 6), net.input(1, 3, 12, 6, dtype="uint8")
    joined = net.add("Add", net.conv(x, 3), net.add("Cast", y, to=1))
    net.output(net.conv(joined, 2))
    feed = {"x0": image(12), "x1": RNG.integers(0, 255, (1, 3, 12, 6)).astype("uint8")}
    with InferenceSession(net.build(), local_peers=2, policy="equal", cache_dir=cache) as session:
        assert [i.type for i in session.get_inputs()] == ["tensor(float)", "tensor(uint8)"]
        agree(session.run(None, feed), whole(net.build(), feed))
        with pytest.raises(InputError, match="2 inputs; give a dict with x0, x1"):
            list(session.stream([image(12)]))


def test_a_given_plan_and_a_change_of_plan(cache: Path, tmp_path: Path) -> None:
    model = load_model(chain(), cache_dir=cache)
    names = ["peer0", "peer1"]
    plan = compile_plan(model.graph, _uneven(model.graph, 0.25), names, model=model.weights_sha256)
    plan.save(tmp_path / "plan.json")
    with InferenceSession(model, local_peers=2, plan=tmp_path / "plan.json", cache_dir=cache) as session:
        assert session.plan == plan
        x = image(16)
        expected = session.run(None, {"x0": x})
        agree(expected, whole(chain(), {"x0": x}))
        stream = session.stream((x for _ in range(30)), in_flight=4)
        answers = [next(stream)]
        session.use(_uneven(model.graph, 0.75))
        answers += list(stream)
        assert len(answers) == 30
        for outputs in answers:
            agree(outputs, expected)
        assert session.plan.strategy == _uneven(model.graph, 0.75)
        assert len(session._client.plans) <= 4
    other = load_model(chain(rows=18), cache_dir=cache)
    with pytest.raises(StrategyError, match="another model"):
        InferenceSession(other, local_peers=2, plan=plan, cache_dir=cache)
    with pytest.raises(StrategyError, match="2 devices, there are 1 peers"):
        InferenceSession(model, local_peers=1, plan=plan, cache_dir=cache)


def _uneven(graph, share: float) -> Strategy:
    scheme = PartitionScheme((graph.cut_points[1],))
    splits = [SplitDecision.from_shares(v.rows, [share, 1 - share]) for v in find_volumes(graph, scheme)]
    return Strategy(scheme, tuple(splits))


def test_peers_of_unequal_speed_get_unequal_rows(cache: Path) -> None:
    net = ModelBuilder()
    x = net.input(1, 3, 96, 96)
    for _ in range(4):
        x = net.relu(net.conv(x, 32))
    net.output(x)
    with InferenceSession(net.build(), local_peers=[1.0, 0.25], cache_dir=cache) as session:
        assert session.limited_by in ("cpu quota", "duty cycle")
        first, second = (session.plan.strategy.splits[0].part(device).size for device in range(2))
        assert first > 1.5 * second
        feed = {"x0": RNG.standard_normal((1, 3, 96, 96)).astype("float32")}
        agree(session.run(None, feed), whole(net.build(), feed))


def test_a_size_that_comes_again_is_not_imported_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distredge.runtime import sizes as module

    imported = []
    monkeypatch.setattr(
        module, "load_model", lambda *args, **named: imported.append(args) or load_model(*args, **named)
    )
    with InferenceSession(
        open_model(), local_peers=2, policy="equal", cache_dir=cache, sizes_kept=1
    ) as session:
        for rows in (20, 24, 20, 24, 24):
            feed = {"x0": image(rows)}
            agree(session.run(None, feed), whole(open_model(), feed))
    assert len(imported) == 2


def test_progress_is_told(cache: Path) -> None:
    told: list[tuple[str, int, int]] = []
    with InferenceSession(
        chain(), local_peers=2, policy="equal", cache_dir=cache, progress=lambda *args: told.append(args)
    ):
        assert {what for what, _, _ in told} <= {"sending the model, MB", "peers ready"}
        assert all(0 <= done <= of for _, done, of in told)
        assert ("peers ready", 2, 2) in told


def test_callers_of_onnxruntimes_class_need_no_change(cache: Path) -> None:
    model = onnx_model(branches())
    model.producer_name = "somebody"
    model.metadata_props.add(key="character", value="abc")
    data = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    with InferenceSession(data, options, ["CPUExecutionProvider"], local_peers=1, cache_dir=cache) as session:
        own = session.get_modelmeta()
        other = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).get_modelmeta()
        for name in (
            "custom_metadata_map",
            "producer_name",
            "graph_name",
            "description",
            "domain",
            "version",
        ):
            assert getattr(own, name) == getattr(other, name)
        assert session.get_providers()


# ---------------------------------------------------------------------- beginning and end


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


@pytest.mark.parametrize("change", [{"shape": (1, 3, 16, 5)}, {"dtype": "float64"}, {"shape": (1, 3, 16)}])
def test_a_plan_that_was_changed_by_hand_is_refused(cache: Path, change: dict[str, Any]) -> None:
    with InferenceSession(chain(), local_peers=2, policy="equal", cache_dir=cache) as session:
        plan = session.plan
        (name,) = plan.inputs
        tensors = {**plan.tensors, name: replace(plan.tensors[name], **change)}
        with pytest.raises(StrategyError, match="is not what its strategy gives for this model"):
            session.use(replace(plan, tensors=tensors))
        session.use(plan)
