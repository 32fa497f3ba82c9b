"""What models rarely have, one oddity each: the split answers right, or a barrier says why not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto
from onnx.helper import make_node

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
