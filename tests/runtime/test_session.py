"""`InferenceSession` over real local peers, used as onnxruntime's class; and what it measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from distredge.errors import InputError
from distredge.runtime.session import InferenceSession
from tests.models import branches
from tests.runtime.support import agree, image, open_model, whole


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


def test_callers_of_onnxruntimes_class_need_no_change(cache: Path) -> None:
    model = onnx.load_model_from_string(branches())
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
