"""Operator -> row rule: convolutions and pools, and how much work matrix operators do.

A window operator may also start rows again: where a map is whole (after attention, say), every device
has all of it and computes its own rows of what follows.
"""

from __future__ import annotations

from math import prod

from distredge.graph.model import Shape
from distredge.graph.operation import NotByRows, Operation, Ruling
from distredge.graph.operators import Builder
from distredge.graph.rules import Axes, TransposedWindowRule, WindowRule

ROW_AXIS = 2
"""The first spatial axis of every ONNX window operator: the rows of a map. Only volumes may have their rows
along another one, since they are often flattened to maps by merging the first into the channels."""


def kernel_shape(op: Operation) -> tuple[int, ...]:
    """The kernel's spatial shape, from the attribute or from the weights."""
    if "kernel_shape" in op.attributes:
        return tuple(op.attributes["kernel_shape"])
    return op.shape(_WEIGHTS[op.op_type])[2:]


def window(extra: tuple[int, ...] = ()) -> Builder:
    """A convolution or a pool over input 0; `extra` inputs are maps of the output's size."""

    def build(op: Operation, axes: Axes) -> Ruling:
        row = _row_axis(op, axes, extra)
        rank = len(op.shape()) - 2
        if sum(bool(out) for out in op.outputs) > 1:
            raise NotByRows(f"{op.op_type} returns Indices of the whole map")
        extent, stride = _along(op, row)
        pads = tuple(op.attributes.get("pads") or (0,) * (2 * rank))
        last = (op.out_shapes[0][row] - 1) * stride - pads[row - 2]
        if extent <= pads[row - 2] or last >= op.shape()[row]:
            raise NotByRows(f"{op.op_type} has windows that lie in the padding alone")
        read = tuple(row if i == 0 or (i in extra and op.has(i)) else None for i in range(len(axes)))
        rule = WindowRule(read, op.shape()[row], extent, stride, pads, row - 2)
        return Ruling(rule, (row,) * len(op.outputs))

    return build


def transposed(op: Operation, axes: Axes) -> Ruling:
    """A transposed convolution: each input row reaches a window of output rows."""
    row = _row_axis(op, axes, ())
    rank = len(op.shape()) - 2
    if "output_shape" in op.attributes:
        raise NotByRows("ConvTranspose is given an output shape that its padding does not explain")
    extent, stride = _along(op, row)
    pads = tuple(op.attributes.get("pads") or (0,) * (2 * rank))
    more = tuple(op.attributes.get("output_padding") or (0,) * rank)
    read = (row,) + (None,) * (len(axes) - 1)
    rule = TransposedWindowRule(read, op.shape()[row], extent, stride, pads, more, row - 2)
    return Ruling(rule, (row,))


def _row_axis(op: Operation, axes: Axes, extra: tuple[int, ...]) -> int:
    """The spatial axis that is split."""
    op.only(axes, 0, *extra)
    rows_at = {axis for axis in axes if axis is not None}
    row = rows_at.pop()
    if row != ROW_AXIS and op.shape()[ROW_AXIS] == 1:
        raise NotByRows(f"{op.op_type} reads a map of one row only")
    if rows_at or not (row == ROW_AXIS or 2 <= row < len(op.shape()) == 5):
        raise NotByRows(f"{op.op_type} slides along axis {ROW_AXIS}, but the rows lie along another")
    if str(op.attributes.get("auto_pad", "NOTSET")) not in ("NOTSET", ""):
        raise NotByRows(f"{op.op_type} pads by itself in a way that is not understood")
    if op.attributes.get("channels_last"):
        raise NotByRows(f"{op.op_type} with channels last is not split")
    return row


def _along(op: Operation, row: int) -> tuple[int, int]:
    """Extent and stride of the window along the row axis."""
    kernel, at = kernel_shape(op)[row - 2], row - 2
    dilations, strides = op.attributes.get("dilations"), op.attributes.get("strides")
    return (kernel - 1) * (dilations[at] if dilations else 1) + 1, strides[at] if strides else 1


_WEIGHTS = {
    "Conv": 1,
    "ConvInteger": 1,
    "ConvTranspose": 1,
    "QLinearConv": 3,
    "com.microsoft::FusedConv": 1,
}

WINDOWS: dict[str, Builder] = {
    "AveragePool": window(),
    "Conv": window(),
    "ConvInteger": window(),
    "ConvTranspose": transposed,
    "LpPool": window(),
    "MaxPool": window(),
    "QLinearConv": window(),
    "com.microsoft::FusedConv": window(extra=(3,)),
    "com.microsoft::QLinearAveragePool": window(),
}


def macs(op_type: str, shapes: tuple[Shape | None, ...], outs: tuple[Shape, ...], transposed_a: bool) -> int:
    """Multiply-accumulates of a convolution or matrix product; 0 for anything else."""
    if op_type in _WEIGHTS:
        weights = shapes[_WEIGHTS[op_type]]
        if not weights or not shapes[0]:
            return 0
        if op_type == "ConvTranspose":
            return prod(shapes[0]) * prod(weights[1:])
        return prod(outs[0]) * prod(weights[1:])
    if op_type in ("MatMul", "MatMulInteger", "QLinearMatMul", "Gemm"):
        a = shapes[0]
        if not a:
            return 0
        return prod(outs[0]) * (a[-2] if transposed_a and len(a) > 1 else a[-1])
    return 0
