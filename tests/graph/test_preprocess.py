"""Pictures of bytes, normalised inside the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from distredge.control.verify import verify
from distredge.errors import InputError
from distredge.graph.importer import load_model
from distredge.graph.preprocess import PRESETS, Preprocess, parse_preprocess, with_preprocessing
from tests.graph.nets import Net

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (1, 3, 16, 12), dtype=np.uint8)


def answer(model: bytes, feed: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": feed})[0]


def first() -> bytes:
    net = Net()
    return net.model({"x": (1, 3, 16, 12)}, [net.conv("x", 3, 4)])


def last() -> bytes:
    net = Net()
    top = net.conv(net.op("Transpose", "x", perm=[0, 3, 1, 2]), 3, 4)
    return net.model({"x": (1, 16, 12, 3)}, [net.op("Transpose", top, perm=[0, 2, 3, 1])])


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_same_bits_as_normalising_before(preset: str) -> None:
    how = PRESETS[preset]
    mean, std = (np.array(each, np.float32).reshape(1, -1, 1, 1) for each in (how.mean, how.std))
    wanted = answer(first(), (PIXELS.astype(np.float32) - mean) / std)
    np.testing.assert_array_equal(answer(with_preprocessing(first(), how), PIXELS), wanted)


@pytest.mark.parametrize("layout", ["", "nchw", "nhwc"])
@pytest.mark.parametrize("build", [first, last])
def test_pictures_come_in_either_layout(build, layout: str) -> None:
    how = Preprocess((120.0, 110.0, 100.0), (60.0, 50.0, 40.0), layout)
    shape = (1, -1, 1, 1) if build is first else (1, 1, 1, -1)
    mean, std = (np.array(each, np.float32).reshape(shape) for each in (how.mean, how.std))
    own = PIXELS if build is first else PIXELS.transpose(0, 2, 3, 1)
    wanted = answer(build(), (own.astype(np.float32) - mean) / std)
    turned = {"nchw": PIXELS, "nhwc": PIXELS.transpose(0, 2, 3, 1)}.get(layout, own)
    np.testing.assert_array_equal(answer(with_preprocessing(build(), how), turned), wanted)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_bytes_travel_and_every_split_agrees(tmp_path: Path, layout: str) -> None:
    data = with_preprocessing(first(), Preprocess((120.0,), (60.0,), layout))
    model = load_model(data, cache_dir=tmp_path)
    assert model.graph.tensors["x"].dtype == "uint8"
    assert model.graph.tensors["x"].row_axis == (2 if layout == "nchw" else 1)
    assert model.graph.split_share == 1
    assert verify(model, peers=3, strategies=6).ok


def test_open_sizes_stay_open(tmp_path: Path) -> None:
    net = Net()
    data = net.model({"x": ("n", 3, "h", "w")}, [net.conv("x", 3, 4)])
    model = load_model(with_preprocessing(data, PRESETS["unit"]), {"x": (2, 3, 8, 8)}, cache_dir=tmp_path)
    assert verify(model, peers=2, strategies=4).ok


def test_bodies_of_branches_read_the_normalised_picture() -> None:
    from onnx import TensorProto, helper

    def body(op: str) -> object:
        out = helper.make_tensor_value_info(f"o{op}", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["x"], [f"o{op}"])], op, [], [out])

    net = Net()
    sure = net.const(np.array(True))
    data = net.model(
        {"x": (1, 3, 16, 12)}, [net.op("If", sure, then_branch=body("Neg"), else_branch=body("Abs"))]
    )
    np.testing.assert_array_equal(
        answer(with_preprocessing(data, PRESETS["raw"]), PIXELS), -PIXELS.astype(np.float32)
    )


def test_what_can_be_written() -> None:
    assert parse_preprocess("imagenet") == PRESETS["imagenet"]
    assert parse_preprocess("unit;layout=nhwc") == Preprocess(std=(255.0,), layout="nhwc")
    assert parse_preprocess("mean=1,2,3;std=4;input=x") == Preprocess((1.0, 2.0, 3.0), (4.0,), "", "x")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("imagenett", "is not understood; give one of imagenet"),
        ("", "is not understood"),
        ("mean=1;mean=2", "is not understood"),
        ("mean=1,b", "is no list of numbers"),
        ("mean=nan", "must be finite"),
        ("std=0", "std not 0"),
        ("layout=chwn", "layout is 'chwn'"),
    ],
)
def test_what_cannot(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_preprocess(text)


def flat() -> bytes:
    net = Net()
    return net.model({"x": (1, 12)}, [net.op("Relu", "x")])


def two() -> bytes:
    net = Net()
    return net.model({"x": (1, 3, 8, 8), "y": (1, 3, 8, 8)}, [net.op("Add", "x", "y")])


@pytest.mark.parametrize(
    ("build", "how", "says"),
    [
        (flat, Preprocess(), "0 inputs take pictures"),
        (two, Preprocess(), "name one with input="),
        (two, Preprocess(input="z"), "has no input 'z'; it has x, y"),
        (first, Preprocess(mean=(1.0, 2.0)), "must have 1 or 3 numbers"),
    ],
)
def test_models_without_such_an_input_are_refused(build, how: Preprocess, says: str) -> None:
    with pytest.raises(InputError, match=says):
        with_preprocessing(build(), how)
    assert with_preprocessing(two(), Preprocess(input="y"))
