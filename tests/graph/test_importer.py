"""Whole models: what is split, and that the parts together answer what onnxruntime answers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from distredge.errors import CacheError, DistrEdgeError, InputError, ModelError
from distredge.graph.importer import Model, load_model, model_inputs
from tests.graph.nets import NETS, Net
from tests.graph.support import feeds_for, reference, relative_error, run_by_parts, run_by_segments
from tests.models import chain

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
LIGHT_SHARES = {
    "bvlc_alexnet": 0.9,
    "densenet121": 0.99,
    "inception_v1": 0.99,
    "inception_v2": 0.99,
    "resnet50": 0.99,
    "shufflenet": 0.99,
    "squeezenet": 1.0,
    "vgg19": 0.99,
    "zfnet512": 0.94,
}
_MATMULS_WHOLE = {"attention": 0.1, "generator": 0.99, "two_inputs": 0.99}


def ocr_path() -> Path:
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or spec.origin is None:
        pytest.skip("rapidocr is not installed")
    return Path(spec.origin).parent / "models/PP-OCRv6_det_small.onnx"


def worst_error(model: Model, devices: int, cuts: tuple[str, ...], seed: int = 0) -> float:
    feeds = feeds_for(model, seed)
    values = run_by_segments(model, feeds, devices, cuts, seed)
    expected = reference(model, feeds)
    return max(
        relative_error(values[name], value) for name, value in zip(model.graph.outputs, expected, strict=True)
    )


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("devices", "step"), [(1, 0), (3, 0), (3, 3), (4, 1)])
def test_parts_answer_like_the_whole(name: str, devices: int, step: int, tmp_path: Path) -> None:
    model = load_model(NETS[name](), cache_dir=tmp_path)
    cuts = model.graph.cut_points[::step] if step else ()
    assert worst_error(model, devices, cuts, seed=devices + step) < 2e-6


@pytest.mark.parametrize("name", NETS)
def test_the_work_is_split(name: str, tmp_path: Path) -> None:
    graph = load_model(NETS[name](), cache_dir=tmp_path).graph
    assert graph.split_share >= _MATMULS_WHOLE.get(name, 0.998)


@pytest.mark.parametrize("name", LIGHT_SHARES)
def test_wheel_models(name: str, tmp_path: Path) -> None:
    model = load_model(LIGHT / f"light_{name}.onnx", cache_dir=tmp_path)
    graph = model.graph
    assert graph.split_share >= LIGHT_SHARES[name]
    assert len(graph.cut_points) >= 10
    assert len(model.onnx) < 300_000
    check_graph(model)
    if name in ("shufflenet", "squeezenet", "inception_v2"):
        assert worst_error(model, 3, graph.cut_points[::20]) < 2e-6


@pytest.mark.parametrize(
    ("source", "shapes", "message"),
    [
        (5, None, "a int is no model; give the path"),
        (Path("/"), None, "/ is a folder; give the ONNX file in it"),
        (chain(), {"x0": "1x3x16x6"}, "input 'x0': '1x3x16x6' is no shape"),
        (chain(), {"x0": (1, 3, "H", 6)}, "is no shape; give whole numbers"),
        (chain(), {"x0": (1, 3, 10**12, 6)}, "is more than 2147483647 numbers"),
    ],
)
def test_a_wrong_source_or_shape_is_one_clear_line(source: Any, shapes: Any, message: str) -> None:
    with pytest.raises(DistrEdgeError, match=message):
        load_model(source, shapes)


def test_weights_that_cannot_be_kept_are_one_clear_line() -> None:
    with pytest.raises(CacheError, match="cannot be kept in /dev/null/x: Not a directory; free some space"):
        load_model(chain(), cache_dir=Path("/dev/null/x"))


def test_page_detector_is_split_almost_whole(tmp_path: Path) -> None:
    model = load_model(ocr_path(), {"x": (1, 3, 640, 640)}, cache_dir=tmp_path)
    graph = model.graph
    assert graph.split_share >= 0.98
    assert sum(node.form == "partial" for node in graph.nodes) == 13
    assert not graph.tail
    check_graph(model)


def test_page_detector_in_parts(tmp_path: Path) -> None:
    model = load_model(ocr_path(), {"x": (1, 3, 96, 64)}, cache_dir=tmp_path)
    feeds = feeds_for(model)
    values = run_by_segments(model, feeds, 3, model.graph.cut_points[::40])
    np.testing.assert_allclose(values[model.graph.outputs[0]], reference(model, feeds)[0], atol=3e-6)


def check_graph(model: Model) -> None:
    """What everybody downstream relies on."""
    graph = model.graph
    seen = set(graph.inputs) | {name for name, tensor in graph.tensors.items() if tensor.constant}
    assert len({node.name for node in graph.nodes}) == len(graph.nodes)
    for i, node in enumerate(graph.nodes):
        assert all(not name or name in seen for name in node.inputs), "not in topological order"
        seen.update(node.outputs)
        assert len(node.rule.axes) == len(node.inputs) or node.form == "combine"
        for name, axis in zip(node.inputs, node.rule.axes, strict=True):
            tensor = graph.tensors.get(name)
            if (
                tensor is not None
                and tensor.row_axis is not None
                and node.rule.kind not in ("barrier", "combine", "features")
            ):
                assert axis == tensor.row_axis
            if tensor is not None and axis is not None:
                assert tensor.shape[axis] > 1
        rowed = {
            graph.tensors[out].rows for out in node.outputs if out and graph.tensors[out].row_axis is not None
        }
        assert len(rowed) <= 1
        assert graph.is_split(i) == (node.rule.kind not in ("barrier", "combine"))
    for tensor in graph.tensors.values():
        assert tensor.row_axis is None or tensor.partial_of or tensor.rows > 1
        assert 1 <= tensor.quantum <= max(1, tensor.rows) or tensor.partial_of
    order = [graph.producer[name] for name in graph.cut_points]
    assert order == sorted(set(order))
    assert not set(order) & graph.tail


@pytest.mark.parametrize("name", NETS)
def test_graphs_are_consistent(name: str, tmp_path: Path) -> None:
    check_graph(load_model(NETS[name](), cache_dir=tmp_path))


def test_import_is_reproducible_and_weights_do_not_depend_on_the_input_shape(tmp_path: Path) -> None:
    n = Net()
    data = n.model(
        {"x": (1, 3, "h", "w")}, [n.op("Resize", n.conv("x", 3, 64), "", n.const([1, 1, 2, 2], "float32"))]
    )
    first = load_model(data, {"x": (1, 3, 32, 24)}, cache_dir=tmp_path)
    again = load_model(data, {"x": (1, 3, 32, 24)}, cache_dir=tmp_path)
    other = load_model(data, {"x": (1, 3, 48, 24)}, cache_dir=tmp_path)
    assert first.onnx == again.onnx
    assert first.graph.digest == again.graph.digest
    assert first.weights_sha256 == other.weights_sha256
    assert first.graph.digest != other.graph.digest
    assert [path.name for path in tmp_path.iterdir()] == [f"{first.weights_sha256}.weights"]


def test_large_weights_are_outside_and_aligned(tmp_path: Path) -> None:
    n = Net()
    y = n.conv("x", 3, 64)
    model = load_model(n.model({"x": (1, 3, 16, 16)}, [n.conv(y, 64, 64)]), cache_dir=tmp_path)
    proto = onnx.load_from_string(model.onnx)
    outside = [t for t in proto.graph.initializer if t.external_data]
    assert len(outside) == 2
    for tensor in outside:
        entry = {e.key: e.value for e in tensor.external_data}
        assert entry["location"] == model.weights.name
        alignment = 4096 if int(entry["length"]) >= 65536 else 64
        assert int(entry["offset"]) % alignment == 0


def test_batch_dimension_alone_defaults_to_one(tmp_path: Path) -> None:
    n = Net()
    data = n.model({"x": ("batch", 3, 16, 16)}, [n.conv("x", 3, 4)])
    assert load_model(data, cache_dir=tmp_path).graph.tensors["x"].shape == (1, 3, 16, 16)
    model = load_model(data, {"x": (4, 3, 16, 16)}, cache_dir=tmp_path)
    assert worst_error(model, 3, ()) == 0
    assert model.input_infos[0].shape == ("batch", 3, 16, 16)
    assert model_inputs(data) == model.input_infos


def test_weights_listed_as_inputs_are_constants(tmp_path: Path) -> None:
    n = Net()
    proto = onnx.load_from_string(n.model({"x": (1, 3, 16, 16)}, [n.conv("x", 3, 4)]))
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    data = proto.SerializeToString()
    assert [info.name for info in model_inputs(data)] == ["x"]
    assert load_model(data, cache_dir=tmp_path).graph.inputs == ("x",)


def test_unnamed_nodes_get_names(tmp_path: Path) -> None:
    proto = onnx.load_from_string(NETS["residual"]())
    for node in proto.graph.node:
        node.name = ""
    check_graph(load_model(proto.SerializeToString(), cache_dir=tmp_path))


def one_line(error: DistrEdgeError) -> str:
    message = str(error)
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model file at") as error:
        load_model(tmp_path / "missing.onnx", cache_dir=tmp_path)
    one_line(error.value)
    whole = NETS["chain"]()
    for data in (b"", b"not a model at all", whole[: len(whole) // 2], bytes(1000)):
        path = tmp_path / "bad.onnx"
        path.write_bytes(data)
        for source in (path, data):
            with pytest.raises(ModelError, match="ONNX") as error:
                load_model(source, cache_dir=tmp_path)
            one_line(error.value)


def test_bad_shapes(tmp_path: Path) -> None:
    n = Net()
    y = n.op("Add", n.conv("x", 3, 4, s=2), n.conv("side", 2, 4))
    data = n.model({"x": (1, 3, "height", "width"), "side": (1, 2, "h", "w")}, [y])
    with pytest.raises(InputError, match="--input-shape x=1x3xHxW") as error:
        load_model(data, cache_dir=tmp_path)
    one_line(error.value)
    with pytest.raises(InputError, match="no input 'z'"):
        load_model(data, {"z": (1, 3, 8, 8)}, cache_dir=tmp_path)
    with pytest.raises(InputError, match="4 dimensions"):
        load_model(data, {"x": (3, 8, 8)}, cache_dir=tmp_path)
    with pytest.raises(InputError, match="must be 1x3xHxW, not 1x4x8x8"):
        load_model(data, {"x": (1, 4, 8, 8)}, cache_dir=tmp_path)
    with pytest.raises(InputError, match="negative"):
        load_model(data, {"x": (1, 3, -1, 8)}, cache_dir=tmp_path)
    with pytest.raises(InputError, match="does not accept x=1x3x16x16, side=1x2x5x5; try") as error:
        load_model(data, {"x": (1, 3, 16, 16), "side": (1, 2, 5, 5)}, cache_dir=tmp_path)
    one_line(error.value)


def test_operator_that_nobody_knows(tmp_path: Path) -> None:
    n = Net()
    data = n.model(
        {"x": (1, 3, 8, 8)}, [n.op("Frobnicate", "x", domain="com.example")], domains={"com.example": 1}
    )
    with pytest.raises(ModelError, match="Frobnicate") as error:
        load_model(data, cache_dir=tmp_path)
    one_line(error.value)


def test_data_dependent_shapes_are_barriers(tmp_path: Path) -> None:
    n = Net()
    y = n.op("NonZero", n.op("Relu", n.conv("x", 3, 2)))
    model = load_model(n.model({"x": (1, 3, 8, 8)}, [n.op("Cast", y, to=1)]), cache_dir=tmp_path)
    assert [node.op_type for node in model.graph.nodes if node.reason] == ["NonZero"]
    values = run_by_parts(model, feeds_for(model), 2)
    assert values[model.graph.outputs[0]].shape[0] == 4


def test_indices_of_a_pool_are_a_barrier(tmp_path: Path) -> None:
    n = Net()
    y, indices = n.op("MaxPool", n.conv("x", 3, 4), outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    data = n.model({"x": (1, 3, 8, 8)}, [y, indices], dtypes={indices: onnx.TensorProto.INT64})
    reasons = [node.reason for node in load_model(data, cache_dir=tmp_path).graph.nodes if node.reason]
    assert reasons == ["MaxPool returns Indices of the whole map"]


def test_weights_in_a_file_beside_the_model(tmp_path: Path) -> None:
    proto = onnx.load_from_string(NETS["residual"]())
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="model.bin", size_threshold=100)
    model = load_model(path, cache_dir=tmp_path)
    inline = load_model(NETS["residual"](), cache_dir=tmp_path)
    assert model.weights_sha256 == inline.weights_sha256
    with pytest.raises(ModelError, match="give the model's path") as error:
        load_model(path.read_bytes(), cache_dir=tmp_path)
    one_line(error.value)
    (tmp_path / "model.bin").unlink()
    with pytest.raises(ModelError, match="weights file cannot be read") as error:
        load_model(path, cache_dir=tmp_path)
    one_line(error.value)


def test_half_floats(tmp_path: Path) -> None:
    n = Net()
    y = n.op("Cast", n.conv("x", 3, 8), to=onnx.TensorProto.FLOAT16)
    y = n.op("Mul", y, n.op("GlobalAveragePool", y))
    y = n.op(
        "Resize",
        y,
        "",
        "",
        n.ints(1, 8, 19, 12),
        mode="linear",
        coordinate_transformation_mode="align_corners",
    )
    y = n.op("Cast", y, to=onnx.TensorProto.FLOAT)
    model = load_model(n.model({"x": (1, 3, 8, 12)}, [n.conv(y, 8, 4)]), cache_dir=tmp_path)
    partials = next(t for t in model.graph.tensors.values() if t.partial_of)
    assert partials.dtype == "float32"
    assert worst_error(model, 3, ()) < 2e-3


@pytest.mark.parametrize(
    "op",
    [
        "ReduceMean",
        "ReduceSum",
        "ReduceMax",
        "ReduceMin",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceProd",
        "ReduceLogSum",
        "ReduceLogSumExp",
    ],
)
@pytest.mark.parametrize("opset", [9, 13, 18])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions_over_rows(op: str, opset: int, keepdims: int, tmp_path: Path) -> None:
    n = Net()
    y = n.op("Abs", n.conv("x", 3, 4, relu=False))
    if opset >= 18 or (op == "ReduceSum" and opset >= 13):
        y = n.op(op, y, n.ints(2, 3), keepdims=keepdims)
    else:
        y = n.op(op, y, axes=[2, -1], keepdims=keepdims)
    model = load_model(n.model({"x": (1, 3, 6, 4)}, [n.op("Neg", y)], opset=opset), cache_dir=tmp_path)
    assert [node.form for node in model.graph.nodes if node.form != "node"] == ["partial", "combine"]
    partials = next(t for t in model.graph.tensors.values() if t.partial_of)
    whole = model.graph.tensors[model.graph.nodes[-1].inputs[0]]
    assert partials.shape == (0, *whole.shape)
    assert worst_error(model, 3, ()) < 2e-6


def test_outputs_that_are_also_read(tmp_path: Path) -> None:
    """Reductions and taps take shapes from the model's own list, outputs included."""
    n = Net()
    y = n.conv("x", 3, 4)
    mean = n.op("GlobalAveragePool", y)
    big = n.op(
        "Resize",
        y,
        "",
        "",
        n.ints(1, 4, 13, 12),
        mode="linear",
        coordinate_transformation_mode="align_corners",
    )
    model = load_model(
        n.model({"x": (1, 3, 8, 12)}, [y, mean, n.op("Mul", big, mean), big]), cache_dir=tmp_path
    )
    assert worst_error(model, 3, ()) < 2e-6
