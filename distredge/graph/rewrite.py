"""Rewrites that make row rules simple. Each keeps the model's answer and gives rules fewer cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, helper

from distredge.graph import features
from distredge.graph.draft import Draft, attributes_of, set_attribute
from distredge.graph.model import Shape
from distredge.graph.quantised import dequantise_late, unsigned_activations

_POOLS = ("AveragePool", "MaxPool", "LpPool")
_PADDED = ("Conv", "ConvInteger", "QLinearConv", *_POOLS)


def rewrite(draft: Draft) -> None:
    """Apply every rewrite that needs no knowledge of rows. Shapes must have been inferred."""
    explicit_pads(draft)
    whole_map_pools(draft)
    unsigned_activations(draft)
    dequantise_late(draft)
    weights_by_feature(draft)
    draft.name_nodes()


def weights_by_feature(draft: Draft) -> None:
    """Large fully connected layers get their weights feature by feature, so that a device's share of them is
    one piece of the weights file."""
    readers = draft.consumers()
    opset = draft.opset
    for node in draft.nodes:
        if node.op_type not in ("Gemm", "MatMul") or node.domain not in ("", "ai.onnx"):
            continue
        name = node.input[1]
        out, weights = draft.shapes.get(node.output[0], ()), draft.constant(name)
        by_feature = bool(attributes_of(node).get("transB", 0))
        if weights is None or by_feature or len(readers[name]) > 1 or not len(out) == weights.ndim == 2:
            continue
        # Only Gemm can read weights so, and before this opset it could not do without a bias.
        if weights.nbytes < features.LARGE_BYTES or (node.op_type == "MatMul" and opset < 11):
            continue
        node.op_type = "Gemm"
        node.input[1] = draft.add_constant(np.ascontiguousarray(weights.T), name)
        set_attribute(node, "transB", 1)


@dataclass(frozen=True)
class _Window:
    """One window operator's attributes, defaults filled in."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    @property
    def extents(self) -> tuple[int, ...]:
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def _window(draft: Draft, node: NodeProto) -> _Window | None:
    attributes = attributes_of(node)
    kernel = attributes.get("kernel_shape")
    if kernel is None:
        weights = draft.shapes.get(node.input[3 if node.op_type == "QLinearConv" else 1])
        if weights is None:
            return None
        kernel = weights[2:]
    rank = len(kernel)
    return _Window(
        tuple(kernel),
        tuple(attributes.get("strides") or (1,) * rank),
        tuple(attributes.get("dilations") or (1,) * rank),
        tuple(attributes.get("pads") or (0,) * (2 * rank)),
    )


def explicit_pads(draft: Draft) -> None:
    """auto_pad and output_shape become pads, so that rules know one way of padding."""
    for node in draft.nodes:
        if node.domain not in ("", "ai.onnx"):
            continue
        attributes = attributes_of(node)
        auto = attributes.get("auto_pad", "NOTSET") or "NOTSET"
        shape, out = draft.shapes.get(node.input[0]) if node.input else None, draft.shapes.get(node.output[0])
        if shape is None or out is None:
            continue
        if node.op_type in _PADDED:
            _explicit_window(draft, node, auto, shape, out)
        elif node.op_type == "ConvTranspose" and (auto != "NOTSET" or "output_shape" in attributes):
            _explicit_transposed(draft, node, auto, shape, out)


def _explicit_window(draft: Draft, node: NodeProto, auto: str, shape: Shape, out: Shape) -> None:
    window = _window(draft, node)
    if auto == "NOTSET" or window is None:
        set_attribute(node, "auto_pad", None)
        return
    if auto == "VALID":
        set_attribute(node, "auto_pad", None)
        set_attribute(node, "pads", (0,) * (2 * len(window.kernel)))
        return
    begins, ends = [], []
    for size, made, extent, stride in zip(shape[2:], out[2:], window.extents, window.strides, strict=True):
        if made != -(-size // stride):
            return
        total = max((made - 1) * stride + extent - size, 0)
        begin = total // 2 if auto == "SAME_UPPER" else total - total // 2
        begins.append(begin)
        ends.append(total - begin)
    set_attribute(node, "auto_pad", None)
    set_attribute(node, "ceil_mode", None)
    set_attribute(node, "pads", (*begins, *ends))


def _explicit_transposed(draft: Draft, node: NodeProto, auto: str, shape: Shape, out: Shape) -> None:
    window = _window(draft, node)
    if window is None:
        return
    more = attributes_of(node).get("output_padding") or [0] * len(window.kernel)
    begins, ends = [], []
    for size, made, extent, stride, extra in zip(
        shape[2:], out[2:], window.extents, window.strides, more, strict=True
    ):
        total = stride * (size - 1) + extra + extent - made
        if total < 0:
            return
        # The odd row goes to the end for SAME_UPPER and to the beginning otherwise.
        begin = total // 2 if auto == "SAME_UPPER" else total - total // 2
        begins.append(begin)
        ends.append(total - begin)
    if auto == "VALID" and any((*begins, *ends)):
        return
    set_attribute(node, "auto_pad", None)
    set_attribute(node, "output_shape", None)
    set_attribute(node, "pads", (*begins, *ends))


def whole_map_pools(draft: Draft) -> None:
    """A pool as high as its map is a reduction over rows in disguise, and splits as one."""
    nodes: list[NodeProto] = []
    for node in draft.nodes:
        nodes.extend(_as_reduction(draft, node) or [node])
    draft.nodes = nodes


def _as_reduction(draft: Draft, node: NodeProto) -> list[NodeProto] | None:
    if node.domain not in ("", "ai.onnx") or len(node.output) != 1:
        return None
    if node.op_type == "GlobalLpPool":
        shape = draft.shapes.get(node.input[0])
        return None if shape is None else _lp(draft, node, tuple(range(2, len(shape))))
    if node.op_type not in _POOLS:
        return None
    if node.op_type == "MaxPool" and draft.dtypes.get(node.input[0]) != "float32":
        return None  # Integers have no GlobalMaxPool.
    shape, out, window = (
        draft.shapes.get(node.input[0]),
        draft.shapes.get(node.output[0]),
        _window(draft, node),
    )
    if shape is None or out is None or window is None or shape[2] == 1 or out[2] != 1:
        return None
    if attributes_of(node).get("auto_pad", "NOTSET") not in ("", "NOTSET") or not _covers(
        node, window, shape, 0
    ):
        return None
    if all(d == 1 for d in out[2:]) and all(
        _covers(node, window, shape, i) for i in range(len(window.kernel))
    ):
        if node.op_type == "LpPool":
            return _lp(draft, node, tuple(range(2, len(shape))))
        kind = "GlobalAveragePool" if node.op_type == "AveragePool" else "GlobalMaxPool"
        return [helper.make_node(kind, [node.input[0]], [node.output[0]], node.name)]
    if node.op_type == "LpPool":
        return None
    # As high as the map but not as wide: pool along the width first, which keeps rows, then reduce.
    inner = NodeProto()
    inner.CopyFrom(node)
    inner.output[0] = draft.fresh(node.output[0])
    inner.name = draft.fresh(node.name or node.op_type)
    set_attribute(inner, "kernel_shape", (1, *window.kernel[1:]))
    set_attribute(inner, "strides", (1, *window.strides[1:]))
    rank = len(window.kernel)
    pads = tuple(0 if i in (0, rank) else pad for i, pad in enumerate(window.pads))
    set_attribute(inner, "pads", pads)
    kind = "ReduceMean" if node.op_type == "AveragePool" else "ReduceMax"
    return [inner, reduce_node(draft, kind, inner.output[0], node.output[0], (2,), node.name)]


def _covers(node: NodeProto, window: _Window, shape: Shape, i: int) -> bool:
    """Whether one window holds all of spatial axis i, and padding does not count."""
    size, begin, end = shape[2 + i], window.pads[i], window.pads[i + len(window.kernel)]
    if window.dilations[i] != 1 or window.kernel[i] - begin < size:
        return False
    counts = node.op_type == "AveragePool" and attributes_of(node).get("count_include_pad", 0)
    return not (counts and (begin or end))


def _lp(draft: Draft, node: NodeProto, over: tuple[int, ...]) -> list[NodeProto] | None:
    power = int(attributes_of(node).get("p", 2))
    if power not in (1, 2):
        return None
    return [reduce_node(draft, f"ReduceL{power}", node.input[0], node.output[0], over, node.name)]


def reduce_node(draft: Draft, kind: str, x: str, y: str, over: tuple[int, ...], name: str = "") -> NodeProto:
    """A Reduce node that keeps its dimensions, in the form of the model's opset."""
    if draft.opset >= (13 if kind == "ReduceSum" else 18):
        axes = draft.add_constant(np.array(over, dtype=np.int64), f"{y}/axes")
        return helper.make_node(kind, [x, axes], [y], name, keepdims=1)
    return helper.make_node(kind, [x], [y], name, axes=list(over), keepdims=1)


def outputs_have_producers(draft: Draft) -> None:
    """An output that is an input or a constant gets an Identity node, so that every output has a producer.

    A constant is renamed and the output keeps its name. An input keeps its name, for the user feeds it,
    and the graph knows the output by another: outputs are told apart by their order.
    """
    made = {name for node in draft.nodes for name in node.output}
    inputs = {value.name for value in draft.inputs}
    for value in draft.outputs:
        old, new = value.name, draft.fresh(value.name)
        if old in made:
            continue
        if old in inputs:
            value.name = new
            draft.nodes.append(helper.make_node("Identity", [old], [new], draft.fresh("Identity")))
        elif old in draft.initializers:
            draft.rename_constant(old, new)
            draft.nodes.append(helper.make_node("Identity", [new], [old], draft.fresh("Identity")))
