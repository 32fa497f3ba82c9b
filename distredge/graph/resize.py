"""Operator -> row rule: Resize and Upsample, by asking onnxruntime what they do.

Six interpolation modes, seven coordinate modes and five opset generations are not worth re-deriving: a
Resize along one axis is linear in its rows, so that running it once on unit rows gives its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from distredge.graph.model import Shape
from distredge.graph.operation import NotByRows, Operation, Ruling
from distredge.graph.operators import Builder
from distredge.graph.rows import Edit
from distredge.graph.rules import Axes, ShiftedResizeRule, TappedResizeRule

Matrix = np.ndarray[Any, np.dtype[np.float32]]


def resize(op: Operation, axes: Axes) -> Ruling:
    """Rows of a Resize; a whole map may become rows here, also one of a single row."""
    op.only(axes, 0)
    shape, out = op.shape(), op.out_shapes[0]
    if str(op.attributes.get("coordinate_transformation_mode", "")) == "tf_crop_and_resize":
        raise NotByRows("Resize crops a region that is given at run time")
    if str(op.attributes.get("keep_aspect_ratio_policy", "stretch")) != "stretch":
        raise NotByRows("Resize fits an aspect ratio")
    row = axes[0]
    if row is None:
        row = next((i for i, (a, b) in enumerate(zip(shape, out, strict=True)) if a != b), None)
        if row is None or row == 0 or out[row] == 1:
            raise NotByRows("Resize of something that has no rows")
    form = _SizeForm(op, row)
    matrix = _weights(
        op.op_type, op.opset, _hashable(op.attributes), form.kind, shape[row], out[row], form.given
    )
    read: Axes = (row if shape[row] > 1 else None,) + (None,) * (len(axes) - 1)
    if shape[row] > 1:
        shifted = _shifted(
            read, row, matrix, form, str(op.attributes.get("coordinate_transformation_mode", ""))
        )
        if shifted is not None:
            return Ruling(shifted, (row,))
    return Ruling(_tapped(op, read, row, matrix, form), (row,))


class _SizeForm:
    """How this node is told its output size, and how to tell it another one.

    Attributes:
        kind: "attribute" (Upsample 7), "scales" or "sizes".
        given: the scale along the row axis, or None where sizes are given.
    """

    def __init__(self, op: Operation, row: int) -> None:
        self.row, self.shape, self.out = row, op.shape(), op.out_shapes[0]
        rank = len(self.shape)
        self.over = [int(a) % rank for a in op.attributes.get("axes") or range(rank)]
        if op.op_type == "Upsample" and op.opset < 9:
            self.kind, self.index = "attribute", -1
            values = tuple(op.attributes["scales"])
        elif op.opset < 11:
            self.kind, self.index = "scales", 1
            values = op.values(1) or ()
        elif op.has(2) and op.shape(2) != (0,):
            self.kind, self.index = "scales", 2
            values = op.values(2) or ()
        else:
            self.kind, self.index = "sizes", 3
            values = op.values(3) or ()
        self.values = tuple(values)
        self.at = self.over.index(row) if row in self.over else None
        self.given = None if self.kind == "sizes" or self.at is None else float(self.values[self.at])

    @property
    def row_scale(self) -> np.float32:
        if self.at is None:
            return np.float32(1)
        if self.given is not None:
            return np.float32(self.given)
        return np.float32(self.out[self.row] / self.shape[self.row])

    def as_scales(self, row_scale: float) -> Edit | None:
        """The same node with `scales`, free of row counts; None where scales round to another size."""
        scales = [float(v) for v in self.values]
        if self.kind == "sizes":
            scales = []
            for axis in self.over:
                scale = np.float32(self.out[axis] / self.shape[axis])
                # onnxruntime rounds down in single precision when it runs, in double when it infers.
                made = {int(np.float32(self.shape[axis]) * scale), int(self.shape[axis] * float(scale))}
                if axis != self.row and made != {self.out[axis]}:
                    return None
                scales.append(float(scale))
        if self.at is not None:
            scales[self.at] = row_scale
        if self.kind == "attribute":
            return Edit(attributes=(("scales", tuple(scales)),))
        if self.kind == "scales":
            if tuple(scales) == tuple(float(v) for v in self.values):
                return None
            return Edit(constants=((self.index, "float32", tuple(scales)),))
        return Edit(constants=((2, "float32", tuple(scales)), (3, "int64", None)))

    def needs_no_edit(self, row_scale: float) -> bool:
        return self.kind != "sizes" and (self.at is None or float(self.values[self.at]) == row_scale)


def _shifted(
    read: Axes, row: int, matrix: Matrix, form: _SizeForm, coordinates: str
) -> ShiftedResizeRule | None:
    """The rule for weights that repeat, or None."""
    out_rows, rows = matrix.shape
    scale = float(form.row_scale)
    ratio = Fraction(scale)
    grow, step = ratio.numerator, ratio.denominator
    if rows % step or out_rows != rows * grow // step:
        return None
    fixed = None if form.needs_no_edit(scale) else form.as_scales(scale)
    if fixed is None and not form.needs_no_edit(scale):
        return None
    if grow == step and np.array_equal(matrix, np.eye(rows, dtype=np.float32)):
        return ShiftedResizeRule(read, rows, 1, 1, (0,), (0,), row, fixed)
    if coordinates == "align_corners":
        return None  # the scale of a part would follow from the part's length
    # pytorch_half_pixel treats an output of one row as a case of its own.
    periods = 2 if grow == 1 and coordinates == "pytorch_half_pixel" else 1
    above, below = [], []
    for phase in range(grow):
        shifts = np.arange(phase, out_rows, grow) // grow * step
        middle = len(shifts) // 2
        used = np.flatnonzero(matrix[phase + middle * grow])
        # A row that touches the edge may have been bent there: then the true reach is not known.
        if not used.size or used[0] == 0 or used[-1] == rows - 1:
            return None
        low, high = int(used[0] - shifts[middle]), int(used[-1] - shifts[middle])
        pattern = matrix[phase + middle * grow, used[0] : used[-1] + 1]
        for j, shift in enumerate(shifts):
            if shift + low < 0 or shift + high >= rows:
                continue
            line = matrix[phase + j * grow]
            inside = line[shift + low : shift + high + 1]
            if not np.array_equal(inside, pattern) or np.count_nonzero(line) != np.count_nonzero(pattern):
                return None
        above.append(low)
        below.append(high)
    return ShiftedResizeRule(read, rows, grow, step, tuple(above), tuple(below), row, fixed, periods)


def _tapped(op: Operation, read: Axes, row: int, matrix: Matrix, form: _SizeForm) -> TappedResizeRule:
    used = [np.flatnonzero(line) for line in matrix]
    used = [u if u.size else np.zeros(1, dtype=np.int64) for u in used]
    rows = tuple(tuple(int(i) for i in u) for u in used)
    weights = tuple(tuple(float(w) for w in line[u]) for line, u in zip(matrix, used, strict=True))
    plain = all(w == (1.0,) for w in weights)
    if not plain and op.dtypes[0] not in ("float32", "float64", "float16"):
        raise NotByRows(f"Resize interpolates {op.dtypes[0]} rows")
    shape, out = op.shape(), op.out_shapes[0]
    keeps = all(a == b for axis, (a, b) in enumerate(zip(shape, out, strict=True)) if axis != row)
    if keeps or form.needs_no_edit(1.0):
        return TappedResizeRule(read, row, rows, weights, keeps)
    fixed = form.as_scales(1.0)
    if fixed is not None:
        return TappedResizeRule(read, row, rows, weights, False, fixed)
    sizes = (form.index, tuple(out[axis] for axis in form.over))
    return TappedResizeRule(read, row, rows, weights, False, None, sizes, form.at)


def _hashable(attributes: Any) -> tuple[tuple[str, Any], ...]:
    dropped = {"axes", "scales"}
    return tuple(
        sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in attributes.items() if k not in dropped)
    )


@lru_cache(maxsize=64)
def _weights(
    op_type: str,
    opset: int,
    attributes: Sequence[tuple[str, Any]],
    kind: str,
    rows: int,
    out: int,
    scale: float | None,
) -> Matrix:
    """`[out row, in row]` weights of a Resize along one axis.

    Raises:
        NotByRows: onnxruntime cannot run it, or it makes another number of rows.
    """
    if scale is None and kind != "sizes":
        return np.eye(rows, dtype=np.float32)
    kwargs = dict(attributes)
    # Opset 11 wants roi and scales to be there even where they say nothing.
    empty = onnx.numpy_helper.from_array(np.zeros(0, dtype=np.float32), "empty")
    inputs, initializers = ["x"], [empty]
    if kind == "sizes":
        sizes = np.array([1, rows, out, 1], dtype=np.int64)
        inputs += ["empty", "empty" if opset < 13 else "", "sizes"]
        initializers.append(onnx.numpy_helper.from_array(sizes, "sizes"))
    elif kind == "attribute":
        kwargs["scales"] = [1.0, 1.0, scale, 1.0]
    else:
        scales = np.array([1, 1, scale, 1], dtype=np.float32)
        inputs += ["scales"] if opset < 11 else ["empty", "scales"]
        initializers.append(onnx.numpy_helper.from_array(scales, "scales"))
    shape: Shape = (1, rows, rows, 1)
    graph = helper.make_graph(
        [helper.make_node(op_type, inputs, ["y"], **kwargs)],
        "probe",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        unit_rows = np.eye(rows, dtype=np.float32).reshape(shape)
        result = session.run(None, {"x": unit_rows})[0]
    except Exception as error:
        raise NotByRows("Resize in a form that onnxruntime does not run by rows") from error
    if result.shape != (1, rows, out, 1):
        raise NotByRows("Resize rounds its size in an unexpected way")
    return np.ascontiguousarray(result.reshape(rows, out).T)


RESIZES: dict[str, Builder] = {"Resize": resize, "Upsample": resize}
