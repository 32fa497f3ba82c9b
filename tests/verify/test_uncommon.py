"""What models rarely have, one oddity each: the split answers right, or a barrier says why not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.helper import make_node, make_sparse_tensor

from distredge.errors import ModelError
from distredge.graph.importer import load_model
from tests.graph.support import Array, model_of
from tests.verify.test_blocks import checked

FLOATS, INT32, UINT8 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.UINT8


def reasons(
    nodes: Sequence[NodeProto],
    outputs: Sequence[str],
    shape: tuple[int, ...] = (1, 3, 24, 10),
    kind: int = FLOATS,
    kinds: dict[str, int] | None = None,
    constants: dict[str, Array] | None = None,
    opset: int = 17,
) -> list[str]:
    """Why this model, whose input is x, has barriers; its split answers must be right."""
    data = model_of(nodes, {"x": shape}, outputs, constants, opset, {"x": kind, **(kinds or {})})
    model, _ = checked(data, peers=3, strategies=4, seed=0)
    return [node.reason for node in model.graph.nodes if node.reason]


@pytest.mark.parametrize("kind", [INT32, TensorProto.INT64])
@pytest.mark.parametrize(
    ("op", "exact"),
    [
        *[("ReduceSum", True), ("ReduceSumSquare", True), ("ReduceL1", True), ("ReduceMax", True)],
        *[("ReduceMin", True), ("ReduceProd", True), ("ReduceMean", False), ("ReduceL2", False)],
        *[("ReduceLogSum", False), ("ReduceLogSumExp", False)],
    ],
)
def test_integers_are_reduced_in_parts_where_that_is_exact(op: str, exact: bool, kind: int) -> None:
    nodes = [make_node("Abs", ["x"], ["a"]), make_node(op, ["a", "axes"], ["y"])]
    axes = {"axes": np.array([2, 3])}
    said = reasons(nodes, ["y"], (1, 1, 12, 3), kind, {"y": kind}, axes, opset=18)
    assert said == ([] if exact else [f"{op} of integers rounds, so partial results do not add up"])


@pytest.mark.parametrize(
    ("op", "constants", "outputs", "attributes"),
    [
        ("MaxPool", 0, ["", ""], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("MaxPool", 0, ["", ""], {"kernel_shape": [24, 10]}),
        ("LayerNormalization", 1, ["", "", ""], {}),
        ("LayerNormalization", 1, ["", "", "d"], {}),
    ],
)
def test_optional_outputs_may_be_left_empty(
    op: str, constants: int, outputs: list[str], attributes: dict[str, Any]
) -> None:
    outputs = ["b", *outputs[1:]]
    values = {"scale": np.ones(10, np.float32)}
    inputs = ["a", *list(values)[:constants]]
    nodes = [make_node("Relu", ["x"], ["a"]), make_node(op, inputs, outputs, **attributes)]
    nodes.append(make_node("Neg", ["b"], ["y"]))
    assert not reasons(nodes, ["y", *filter(None, outputs[1:])], constants=values)


def test_the_first_output_may_be_left_empty() -> None:
    drawn = np.random.default_rng(0)
    values = {"w": drawn.random((1, 12, 4), np.float32), "r": drawn.random((1, 12, 3), np.float32)}
    nodes = [make_node("Relu", ["x"], ["a"]), make_node("LSTM", ["a", "w", "r"], ["", "y"], hidden_size=3)]
    assert reasons(nodes, ["y"], (6, 5, 4), constants=values) == ["LSTM runs along the whole sequence"]


@pytest.mark.parametrize("kind", [UINT8, TensorProto.INT8])
def test_pools_of_bytes_over_the_whole_map(kind: int) -> None:
    nodes = [make_node("MaxPool", ["x"], ["y"], kernel_shape=[24, 10])]
    assert reasons(nodes, ["y"], kind=kind, kinds={"y": kind}) == ["MaxPool makes one row of the whole map"]


def test_batch_normalisation_by_element() -> None:
    values = {name: np.random.default_rng(0).random((3, 24, 10), np.float32) + 1 for name in "sbmv"}
    nodes = [make_node("BatchNormalization", ["x", *"sbmv"], ["y"], spatial=0)]
    said = reasons(nodes, ["y"], constants=values, opset=7)
    assert said == ["BatchNormalization has parameters for each row"]


@pytest.mark.parametrize(
    ("left", "zeros", "split"),
    [(True, (1,), True), (True, (12,), False), (False, (12,), True), (False, (1,), True)],
)
def test_integer_products_with_zero_points(left: bool, zeros: tuple[int, ...], split: bool) -> None:
    """A constant times the rows of x, or the rows of x times a constant."""
    drawn = np.random.default_rng(0)
    values = {
        "c": drawn.integers(0, 255, (8, 16) if left else (16, 12)).astype(np.uint8),
        "za": np.uint8(3),
        "zb": drawn.integers(0, 255, zeros).astype(np.uint8),
    }
    nodes = [make_node("MatMulInteger", ["c", "x", "za", "zb"] if left else ["x", "c", "za", "zb"], ["y"])]
    shape = (16, 12) if left else (24, 16)
    said = reasons(nodes, ["y"], shape, UINT8, {"y": INT32}, values)
    assert bool(said) != split


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(
    ("op", "kernel", "stride", "dilation", "split"),
    [
        *[("MaxPool", 2, 2, 2, True), ("MaxPool", 3, 1, 3, True), ("AveragePool", 3, 2, 2, True)],
        *[("LpPool", 3, 2, 2, True), ("MaxPool", 2, 3, 2, False)],
    ],
)
def test_dilated_pools_that_pad_by_themselves(
    op: str, kernel: int, stride: int, dilation: int, split: bool, auto_pad: str
) -> None:
    window = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "dilations": [dilation] * 2}
    nodes = [make_node(op, ["x"], ["a"], auto_pad=auto_pad, **window), make_node("Neg", ["a"], ["y"])]
    said = reasons(nodes, ["y"], (1, 1, 24, 12), opset=22)
    assert said == ([] if split else ["MaxPool pads by itself in a way that is not understood"])


def sparse_model(as_node: bool, rank_one: bool, dims: tuple[int, ...] = (4, 3, 3, 3)) -> bytes:
    """A convolution with three weights that are not zero."""
    at = np.array([1, 20, 100])
    values = numpy_helper.from_array(np.array([1, 2, 3], np.float32), "w")
    indices = at if rank_one else np.stack(np.unravel_index(at, (4, 3, 3, 3)), 1)
    sparse = make_sparse_tensor(values, numpy_helper.from_array(indices, "at"), dims)
    nodes = [make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])]
    if as_node:
        nodes.insert(0, make_node("Constant", [], ["w"], sparse_value=sparse))
    model = ModelProto.FromString(model_of(nodes, {"x": (1, 3, 24, 10)}, ["y"]))
    if not as_node:
        model.graph.sparse_initializer.append(sparse)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("as_node", [False, True])
@pytest.mark.parametrize("rank_one", [False, True])
def test_sparse_weights(as_node: bool, rank_one: bool) -> None:
    model, outcome = checked(sparse_model(as_node, rank_one), peers=3, strategies=4, seed=0)
    assert outcome.split_share == 1.0
    assert model.graph.tensors["w"].constant


@pytest.mark.parametrize("dims", [(2, 3, 3, 3), (4000, 3000, 3000, 3000)])
def test_sparse_weights_that_do_not_hold_together(dims: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="the sparse constant 'w' cannot be read"):
        load_model(sparse_model(False, True, dims))


def test_a_model_without_inputs() -> None:
    nodes = [make_node("ConstantOfShape", ["shape"], ["a"]), make_node("Conv", ["a", "w"], ["y"])]
    values = {"shape": np.array([1, 3, 8, 8]), "w": np.ones((4, 3, 3, 3), np.float32)}
    checked(model_of(nodes, {}, ["y"], values), peers=3, strategies=4, seed=0)


def test_names_that_distredge_gives_itself_may_be_taken() -> None:
    """A reduction, what it divides, a crop, and a normalisation, beside tensors of their working names."""
    nodes = [
        make_node("Relu", ["x"], ["a"]),
        make_node("GlobalAveragePool", ["a"], ["y"]),
        make_node("Relu", ["a"], ["y.partials"]),
        make_node("Neg", ["y.partials"], ["y.partials_"]),
        make_node("Mul", ["y", "y.partials_"], ["x/distredge_1"]),
        make_node("Pad", ["x/distredge_1", "pads"], ["z"]),
        make_node("Neg", ["z"], ["z/part_1"], name="node/part_2"),
        make_node("Exp", ["z/part_1"], ["constant/part_1"]),
        make_node("InstanceNormalization", ["constant/part_1", "ones", "ones"], ["last"]),
    ]
    values = {"pads": np.array([0, 0, 2, 0, 0, 0, 2, 0]), "ones": np.ones(3, np.float32)}
    assert not reasons(nodes, ["last", "x", "y.partials", "constant/part_1"], constants=values)


def test_a_map_of_one_row_says_so() -> None:
    nodes = [make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])]
    values = {"w": np.ones((4, 1, 3, 3), np.float32)}
    assert reasons(nodes, ["y"], (1, 1, 1, 20), constants=values) == ["Conv reads a map of one row only"]
