"""Operator -> row rule: pointwise operators, in a table. Windows, layouts and resizes have their own files.

A builder takes the operation and the row axes of its inputs (at least one of them set) and returns a
Ruling or raises NotByRows with a reason.
"""

from __future__ import annotations

from collections.abc import Callable
from math import lcm, prod

from distredge.graph.operation import NotByRows, Operation, Ruling
from distredge.graph.rows import Edit
from distredge.graph.rules import Axes, PartialRule, PointwiseRule

Builder = Callable[[Operation, Axes], Ruling]


def same_rows(op: Operation, axes: Axes, out_axis: int | None = None, fixed: Edit | None = None) -> Ruling:
    """A pointwise ruling; every output is rowed along `out_axis` (default: input 0's axis)."""
    axis = op.rowed_axis(axes) if out_axis is None else out_axis
    return Ruling(PointwiseRule(axes, fixed), (axis,) * len(op.outputs))


def broadcast(op: Operation, axes: Axes) -> Ruling:
    """Elementwise with numpy broadcasting: axes are aligned from the right, one row serves all."""
    rank = len(op.out_shapes[0])
    from_right = {len(op.shape(i)) - axis for i, axis in enumerate(axes) if axis is not None}
    if len(from_right) != 1:
        raise NotByRows(f"{op.op_type} combines inputs whose rows lie along different axes")
    back = from_right.pop()
    rows = op.out_shapes[0][rank - back]
    read: list[int | None] = []
    for shape, axis in zip(op.shapes, axes, strict=True):
        if shape is None or len(shape) < back or shape[len(shape) - back] == 1:
            read.append(None)
        elif shape[len(shape) - back] != rows:
            raise NotByRows(f"{op.op_type} combines maps of different heights")
        else:
            read.append(len(shape) - back if axis is None else axis)
    return Ruling(PointwiseRule(tuple(read)), (rank - back,) * len(op.outputs))


def elementwise(op: Operation, axes: Axes) -> Ruling:
    """Input 0 element by element; the others are parameters."""
    op.only(axes, 0)
    return same_rows(op, axes)


def along(attribute: str = "axis", default: int = -1) -> Builder:
    """Operators that mix along one axis and leave the others alone."""

    def build(op: Operation, axes: Axes) -> Ruling:
        op.only(axes, 0)
        row, rank = op.rowed_axis(axes), len(op.shape())
        if int(op.attributes.get(attribute, default)) % rank == row:
            raise NotByRows(f"{op.op_type} mixes all rows")
        return same_rows(op, axes)

    return build


def softmax(op: Operation, axes: Axes) -> Ruling:
    """By rows unless it sums over them; before opset 13 over all axes from one on."""
    if op.opset >= 13:
        return along()(op, axes)
    return normalised_from(default=1)(op, axes)


def normalised_from(default: int = -1) -> Builder:
    """Operators that mix everything from `axis` on."""

    def build(op: Operation, axes: Axes) -> Ruling:
        op.only(axes, 0)
        row, rank = op.rowed_axis(axes), len(op.shape())
        if int(op.attributes.get("axis", default)) % rank <= row:
            raise NotByRows(f"{op.op_type} mixes all rows")
        return same_rows(op, axes)

    return build


def channelwise(op: Operation, axes: Axes) -> Ruling:
    """BatchNormalization and LRN: parameters or a window along axis 1."""
    op.only(axes, 0)
    is_batch = op.op_type == "BatchNormalization"
    if op.rowed_axis(axes) == 1 and not is_batch:
        raise NotByRows(f"{op.op_type} works along axis 1, where the rows are")
    if not op.attributes.get("spatial", 1):
        raise NotByRows(f"{op.op_type} has parameters for each row")
    if is_batch and (len(op.outputs) > 1 or op.attributes.get("training_mode")):
        raise NotByRows("BatchNormalization in training mode takes statistics of the whole map")
    if op.rowed_axis(axes) == 1:
        return same_rows(op, (1, *(0 for _ in axes[1:])))
    return same_rows(op, axes)


def quantise(op: Operation, axes: Axes) -> Ruling:
    """QuantizeLinear and DequantizeLinear; a scale per row is read by rows."""
    op.only(axes, 0)
    row, shape = op.rowed_axis(axes), op.shape()
    axis = int(op.attributes.get("axis", 1)) % max(1, len(shape))
    blocked = bool(op.attributes.get("block_size", 0))
    if blocked and axis == row:
        raise NotByRows(f"{op.op_type} shares scales between blocks of rows")
    read = [axes[0]]
    for parameter in op.shapes[1:]:
        size = 1 if parameter is None else prod(parameter)
        if blocked and size > 1:
            read.append(row)
        elif size > 1 and axis == row:
            read.append(0)
        else:
            read.append(None)
    return same_rows(op, tuple(read))


def concat(op: Operation, axes: Axes) -> Ruling:
    """By rows where inputs are joined along another axis."""
    rows_at = {axis for axis in axes if axis is not None}
    if len(rows_at) != 1:
        raise NotByRows("Concat joins inputs whose rows lie along different axes")
    row = rows_at.pop()
    if int(op.attributes["axis"]) % len(op.shape()) == row:
        raise NotByRows("Concat joins maps one below the other")
    return Ruling(PointwiseRule((row,) * len(axes)), (row,))


def quantised_concat(op: Operation, axes: Axes) -> Ruling:
    """com.microsoft::QLinearConcat: output scale and zero point, then (tensor, scale, zero point) each."""
    rows_at = {axis for axis in axes if axis is not None}
    if len(rows_at) != 1:
        raise NotByRows("QLinearConcat joins inputs whose rows lie along different axes")
    row = rows_at.pop()
    if int(op.attributes["axis"]) % len(op.shape(2)) == row:
        raise NotByRows("QLinearConcat joins maps one below the other")
    read = tuple(row if i >= 2 and i % 3 == 2 else None for i in range(len(axes)))
    return Ruling(PointwiseRule(read), (row,))


def quantised_binary(op: Operation, axes: Axes) -> Ruling:
    """com.microsoft::QLinearAdd and its like: (A, scale, zero, B, scale, zero, scale, zero)."""
    pair = Operation(
        op.op_type, op.opset, {}, (op.inputs[0], op.inputs[3]), op.outputs, (op.shapes[0], op.shapes[3]),
        op.out_shapes, (op.dtypes[0], op.dtypes[3]), (None, None), (op.constant[0], op.constant[3]),
    )  # fmt: skip
    op.only(axes, 0, 3)
    ruling = broadcast(pair, (axes[0], axes[3]))
    read = ruling.rule.axes
    return Ruling(PointwiseRule((read[0], None, None, read[1], *(None,) * (len(axes) - 4))), ruling.out_axes)


def gather(op: Operation, axes: Axes) -> Ruling:
    """By rows where something else than rows is picked."""
    op.only(axes, 0)
    row, rank = op.rowed_axis(axes), len(op.shape())
    axis = int(op.attributes.get("axis", 0)) % rank
    if axis == row:
        raise NotByRows("Gather picks rows by number")
    return same_rows(op, axes, row if row < axis else row + len(op.shape(1)) - 1)


def tile(op: Operation, axes: Axes) -> Ruling:
    """By rows unless the map is repeated downwards."""
    op.only(axes, 0)
    row, repeats = op.rowed_axis(axes), op.values(1)
    if repeats is None or repeats[row] != 1:
        raise NotByRows("Tile repeats the map downwards")
    return same_rows(op, axes)


def cumulative(op: Operation, axes: Axes) -> Ruling:
    """By rows unless it runs along them."""
    op.only(axes, 0)
    axis = op.values(1)
    if axis is None or axis[0] % len(op.shape()) == op.rowed_axis(axes):
        raise NotByRows("CumSum runs over all rows")
    return same_rows(op, axes)


def expand(op: Operation, axes: Axes) -> Ruling:
    """The target's row dimension becomes 1, which keeps the rows that come in."""
    op.only(axes, 0)
    row, target = op.rowed_axis(axes), op.values(1)
    assert target is not None
    rank = len(op.out_shapes[0])
    out_axis = row + rank - len(op.shape())
    values = [1] * (rank - len(target)) + list(target)
    values[out_axis] = 1
    return same_rows(op, axes, out_axis, Edit(constants=((1, "int64", tuple(values)),)))


def arg_reduce(op: Operation, axes: Axes) -> Ruling:
    """By rows unless all rows are searched."""
    row, rank = op.rowed_axis(axes), len(op.shape())
    axis = int(op.attributes.get("axis", 0)) % rank
    if axis == row:
        raise NotByRows(f"{op.op_type} searches all rows")
    gone = not op.attributes.get("keepdims", 1) and axis < row
    return same_rows(op, axes, row - gone)


SPLITTABLE_REDUCTIONS = (
    "GlobalAveragePool",
    "GlobalMaxPool",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
ORDER_FREE = frozenset({"ReduceMax", "ReduceMin", "GlobalMaxPool"})
"""Reductions whose result does not depend on the order of the operands, not even in the last bit."""
_EXACT_IN_INTEGERS = ORDER_FREE | {"ReduceL1", "ReduceProd", "ReduceSum", "ReduceSumSquare"}
"""Reductions whose partial results are integers where the operands are: nothing is divided, no root or
logarithm taken. An overflow wraps around, in whatever order."""


def reduced_axes(op: Operation) -> tuple[int, ...]:
    """The axes over which a reduction or a global pool goes; empty where it does nothing.

    Raises:
        NotByRows: they are computed at run time.
    """
    rank = len(op.shape())
    if op.op_type.startswith("Global"):
        return tuple(range(2, rank))
    given = op.values(1, "axes")
    if not given:
        return () if op.attributes.get("noop_with_empty_axes") else tuple(range(rank))
    return tuple(sorted(int(axis) % rank for axis in given))


def reduction(op: Operation, axes: Axes) -> Ruling:
    """Over other axes: pointwise. Over rows: devices reduce what they own and combine the results."""
    op.only(axes, 0)
    row, over = op.rowed_axis(axes), reduced_axes(op)
    if row not in over:
        gone = 0 if op.attributes.get("keepdims", 1) else sum(axis < row for axis in over)
        return same_rows(op, axes, row - gone)
    if op.op_type not in ORDER_FREE:
        if op.requantised:
            raise NotByRows(f"{op.op_type} in a quantised net: partial sums would round differently")
        if op.op_type not in _EXACT_IN_INTEGERS and not op.dtypes[0].startswith("float"):
            raise NotByRows(f"{op.op_type} of integers rounds, so partial results do not add up")
    if op.dtypes[0] not in {"float32", "float64", "float16", "int32", "int64"}:
        raise NotByRows(f"{op.op_type} of {op.dtypes[0]} is not split")
    return Ruling(PartialRule(axes), (0,), reduces=True)


def matmul(op: Operation, axes: Axes) -> Ruling:
    """MatMul and MatMulInteger where the row axis is not the one summed over."""
    return _scaled_product(op, axes, (0, 2, 3), (1, 3, 4))


def quantised_matmul(op: Operation, axes: Axes) -> Ruling:
    """By rows with one scale for all of them."""
    if _one_each(op, 6, 8):
        raise NotByRows("QLinearMatMul has a scale for each row")
    return _scaled_product(op, axes, (0, 1, 3), (3, 4, 6))


def _scaled_product(op: Operation, axes: Axes, a: tuple[int, int, int], b: tuple[int, int, int]) -> Ruling:
    """A product whose matrices have scales or zero points: (matrix, first of its parameters, behind them).

    A matrix that is read by rows needs one for all of it, since the parameters come whole.
    """
    ruling = _product(op, axes, a[0], b[0])
    for matrix, first, behind in (a, b):
        if ruling.rule.axes[matrix] is not None and _one_each(op, first, behind):
            raise NotByRows(f"{op.op_type} has a scale or zero point for each row")
    return ruling


def _one_each(op: Operation, first: int, behind: int) -> bool:
    """Whether any of these parameters has more than one value."""
    return any(shape is not None and prod(shape) > 1 for shape in op.shapes[first:behind])


def _product(op: Operation, axes: Axes, a: int, b: int) -> Ruling:
    op.only(axes, a, b)
    if axes[a] is not None and axes[b] is not None:
        return _batched_product(op, axes, a, b)
    at = a if axes[a] is not None else b
    row, shape, rank = op.rowed_axis(axes, at), op.shape(at), len(op.out_shapes[0])
    summed = len(shape) - 1 if at == a or len(shape) == 1 else len(shape) - 2
    if row == summed:
        raise NotByRows(f"{op.op_type} sums over rows")
    other = op.shape(b if at == a else a)
    if len(shape) == 1 or len(other) == 1:
        raise NotByRows(f"{op.op_type} with a vector is not split")
    read = list(axes)
    back = len(shape) - row
    if back > 2 and len(other) >= back and other[len(other) - back] != 1:
        read[b if at == a else a] = len(other) - back
    return same_rows(op, tuple(read), rank - back)


def _batched_product(op: Operation, axes: Axes, a: int, b: int) -> Ruling:
    back = {len(op.shape(i)) - op.rowed_axis(axes, i) for i in (a, b)}
    if len(back) != 1 or min(back) <= 2:
        raise NotByRows(f"{op.op_type} multiplies rows with all other rows")
    return same_rows(op, axes, len(op.out_shapes[0]) - back.pop())


def gemm(op: Operation, axes: Axes) -> Ruling:
    """By rows of the first matrix, unless they are what is summed over."""
    op.only(axes, 0, 2)
    row = op.rowed_axis(axes)
    if row == (0 if op.attributes.get("transA", 0) else 1):
        raise NotByRows("Gemm sums over rows")
    read = list(axes)
    if op.has(2):
        bias = op.shape(2)
        by_rows = len(bias) == 2 and bias[0] != 1
        if axes[2] is not None and not (by_rows and axes[2] == 0):
            raise NotByRows("Gemm adds rows along another axis")
        read[2] = 0 if by_rows else None
    return same_rows(op, tuple(read), 0)


def split(op: Operation, axes: Axes) -> Ruling:
    """By rows unless rows are what is taken apart."""
    op.only(axes, 0)
    if int(op.attributes.get("axis", 0)) % len(op.shape()) == op.rowed_axis(axes):
        raise NotByRows("Split takes the map apart by rows")
    return same_rows(op, axes)


def dropout(op: Operation, axes: Axes) -> Ruling:
    """As nothing at all; in training mode it cannot be split."""
    if op.has(2) and op.constants[2] is None:
        raise NotByRows("Dropout in training mode draws at random")
    return elementwise(op, axes)


def mixes(reason: str) -> Builder:
    """A known barrier, in plain words."""

    def build(op: Operation, axes: Axes) -> Ruling:
        raise NotByRows(reason)

    return build


def joint_quantum(quanta: list[int], rows: int) -> int:
    """The quantum of what is made from tensors with these."""
    together = lcm(*quanta) if quanta else 1
    return together if together <= rows else max(quanta)


_ELEMENTWISE = """Abs Acos Acosh Asin Asinh Atan Atanh Cast Ceil Celu Clip Cos Cosh Elu Erf Exp Floor Gelu
    HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink
    Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu BitwiseNot
    com.microsoft::Gelu com.microsoft::FastGelu com.microsoft::QuickGelu com.microsoft::QLinearSigmoid
    com.microsoft::QLinearLeakyRelu"""
_BROADCAST = """Add And BitShift BitwiseAnd BitwiseOr BitwiseXor CastLike Div Equal Greater GreaterOrEqual
    Less LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor com.microsoft::BiasGelu"""

RANDOM = (
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
)
"""Two runs of these differ, wherever they run."""

POINTWISE: dict[str, Builder] = {
    **dict.fromkeys(_ELEMENTWISE.split(), elementwise),
    **dict.fromkeys(_BROADCAST.split(), broadcast),
    **dict.fromkeys(SPLITTABLE_REDUCTIONS, reduction),
    "ArgMax": arg_reduce,
    "ArgMin": arg_reduce,
    "BatchNormalization": channelwise,
    "Concat": concat,
    "CumSum": cumulative,
    "DequantizeLinear": quantise,
    "Dropout": dropout,
    "Expand": expand,
    "Gather": gather,
    "Gemm": gemm,
    "Hardmax": softmax,
    "LRN": channelwise,
    "LayerNormalization": normalised_from(),
    "LogSoftmax": softmax,
    "LpNormalization": along(),
    "MatMul": matmul,
    "MatMulInteger": matmul,
    "QLinearMatMul": quantised_matmul,
    "QuantizeLinear": quantise,
    "RMSNormalization": normalised_from(),
    "SimplifiedLayerNormalization": normalised_from(),
    "Softmax": softmax,
    "Split": split,
    "Tile": tile,
    "TopK": along(),
    "com.microsoft::DequantizeLinear": quantise,
    "com.microsoft::QuantizeLinear": quantise,
    "com.microsoft::QLinearAdd": quantised_binary,
    "com.microsoft::QLinearMul": quantised_binary,
    "com.microsoft::QLinearConcat": quantised_concat,
    "DynamicQuantizeLinear": mixes("DynamicQuantizeLinear takes its scale from the whole map"),
    "InstanceNormalization": mixes("InstanceNormalization takes statistics of the whole map"),
    "GroupNormalization": mixes("GroupNormalization takes statistics of the whole map"),
    "Einsum": mixes("Einsum is not split"),
    "NonMaxSuppression": mixes("NonMaxSuppression compares all boxes"),
    "NonZero": mixes("NonZero gives as many values as the data has"),
    "GridSample": mixes("GridSample may read any row"),
    "RoiAlign": mixes("RoiAlign may read any row"),
    "LSTM": mixes("LSTM runs along the whole sequence"),
    "GRU": mixes("GRU runs along the whole sequence"),
    "RNN": mixes("RNN runs along the whole sequence"),
    "com.microsoft::QLinearGlobalAveragePool": mixes(
        "QLinearGlobalAveragePool rounds, so partial means would round differently"
    ),
    "MaxUnpool": mixes("MaxUnpool takes positions in the whole map"),
}
