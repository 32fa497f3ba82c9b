"""Operator -> row rule: operators that move data without computing (Reshape, Transpose, Slice, Pad ...)."""

from __future__ import annotations

from math import prod

from distredge.graph.model import Shape
from distredge.graph.operation import NotByRows, Operation, Ruling
from distredge.graph.operators import Builder, same_rows
from distredge.graph.rows import Edit
from distredge.graph.rules import LAST, Axes, GrowRule, PadRule, PointwiseRule, ShrinkRule, SliceRule


def transpose(op: Operation, axes: Axes) -> Ruling:
    """Rows move to another axis."""
    rank = len(op.shape())
    order = list(op.attributes.get("perm") or reversed(range(rank)))
    return same_rows(op, axes, order.index(op.rowed_axis(axes)))


def squeeze(op: Operation, axes: Axes) -> Ruling:
    """Axes of size one go; rows may then be at another number."""
    op.only(axes, 0)
    row, shape = op.rowed_axis(axes), op.shape()
    given = op.values(1, "axes")
    gone = [int(a) % len(shape) for a in given] if given else [a for a, d in enumerate(shape) if d == 1]
    return same_rows(op, axes, row - sum(axis < row for axis in gone))


def unsqueeze(op: Operation, axes: Axes) -> Ruling:
    """Axes of size one come; rows may then be at another number."""
    op.only(axes, 0)
    rank, given = len(op.out_shapes[0]), op.values(1, "axes")
    assert given is not None
    new = {int(axis) % rank for axis in given}
    kept = [axis for axis in range(rank) if axis not in new]
    return same_rows(op, axes, kept[op.rowed_axis(axes)])


def regrouped_axis(shape: Shape, row: int, target: Shape) -> tuple[int, int, int] | None:
    """Where rows go when a tensor is read in another shape.

    Returns:
        (axis in the target, rows made of one row, rows that make one row), one of the last two being 1;
        None where rows do not stay contiguous blocks.
    """
    before, block = prod(shape[:row]), prod(shape[row + 1 :])
    for axis in range(len(target)):
        if prod(target[:axis]) != before or target[axis] == 1:
            continue
        new_block = prod(target[axis + 1 :])
        if block % new_block == 0:
            return axis, block // new_block, 1
        if new_block % block == 0:
            return axis, 1, new_block // block
    return None


def reshape(op: Operation, axes: Axes) -> Ruling:
    """Reshape and Flatten: rows stay, become several rows each, or several become one."""
    op.only(axes, 0)
    row, target = op.rowed_axis(axes), op.out_shapes[0]
    found = regrouped_axis(op.shape(), row, target)
    if found is None:
        raise NotByRows(f"{op.op_type} mixes rows into one vector")
    axis, grow, shrink = found
    # The row dimension is left to be inferred, so that one session serves every number of rows.
    values = tuple(-1 if i == axis else d for i, d in enumerate(target))
    fixed = None if op.op_type == "Flatten" else Edit(constants=((1, "int64", values),))
    rule_axes = (row,) + (None,) * (len(axes) - 1)
    if grow > 1:
        return Ruling(GrowRule(rule_axes, grow, axis, fixed), (axis,), grow)
    if shrink > 1:
        return Ruling(ShrinkRule(rule_axes, shrink, fixed), (axis,))
    return Ruling(PointwiseRule(rule_axes, fixed), (axis,))


def depth_to_space(op: Operation, axes: Axes) -> Ruling:
    """Each row becomes `blocksize` rows."""
    if op.rowed_axis(axes) != 2:
        raise NotByRows("DepthToSpace rearranges the axis where the rows are")
    block = int(op.attributes["blocksize"])
    return Ruling(GrowRule(axes, block, 2), (2,), block)


def space_to_depth(op: Operation, axes: Axes) -> Ruling:
    """`blocksize` rows become one."""
    if op.rowed_axis(axes) != 2:
        raise NotByRows("SpaceToDepth rearranges the axis where the rows are")
    return Ruling(ShrinkRule(axes, int(op.attributes["blocksize"])), (2,))


def slices(op: Operation, axes: Axes) -> Ruling:
    """Slice; where it lists the row axis, its range there is opened, for the needed rows are all it gets."""
    op.only(axes, 0)
    row, shape = op.rowed_axis(axes), op.shape()
    starts, ends = op.values(1, "starts"), op.values(2, "ends")
    assert starts is not None
    assert ends is not None
    over = [int(axis) % len(shape) for axis in op.values(3, "axes") or range(len(starts))]
    if row not in over:
        return same_rows(op, axes)
    at = over.index(row)
    steps = op.values(4) or (1,) * len(starts)
    first, stop, step = slice(int(starts[at]), int(ends[at]), int(steps[at])).indices(shape[row])
    if step < 0:
        raise NotByRows("Slice turns the map upside down")
    opened_starts = tuple(0 if i == at else int(v) for i, v in enumerate(starts))
    opened_ends = tuple(LAST if i == at else int(v) for i, v in enumerate(ends))
    if op.has(1):
        dtype = op.dtypes[1]
        limit = LAST if dtype == "int64" else 2**31 - 1
        opened_ends = tuple(min(v, limit) for v in opened_ends)
        fixed = Edit(constants=((1, dtype, opened_starts), (2, dtype, opened_ends)))
    else:
        fixed = Edit(attributes=(("starts", opened_starts), ("ends", opened_ends)))
    if step == 1 and (first, stop) == (0, shape[row]):
        return same_rows(op, axes, fixed=fixed)
    return Ruling(SliceRule(axes, first, step, fixed), (row,))


def pad(op: Operation, axes: Axes) -> Ruling:
    """Rows may be added above and below; parts get only those of their own border."""
    op.only(axes, 0)
    row, shape = op.rowed_axis(axes), op.shape()
    given = op.values(1, "pads")
    assert given is not None
    pads = tuple(int(v) for v in given)
    over = [int(axis) % len(shape) for axis in op.values(3) or range(len(shape))]
    if row not in over:
        return same_rows(op, axes)
    at = (over.index(row), over.index(row) + len(over))
    top, bottom = pads[at[0]], pads[at[1]]
    if top == bottom == 0:
        return same_rows(op, axes)
    mode = op.attributes.get("mode", "constant")
    if min(top, bottom) < 0:
        raise NotByRows("Pad with negative pads cuts rows off")
    if mode not in ("constant", "edge", "reflect"):
        raise NotByRows(f"Pad in mode {mode} repeats rows from the other edge")
    if mode == "reflect" and max(top, bottom) >= shape[row]:
        raise NotByRows("Pad mirrors more rows than there are")
    as_input = 1 if op.has(1) else None
    return Ruling(PadRule(axes, shape[row], top, bottom, mode == "reflect", pads, at, as_input), (row,))


LAYOUTS: dict[str, Builder] = {
    "DepthToSpace": depth_to_space,
    "Flatten": reshape,
    "Pad": pad,
    "Reshape": reshape,
    "Slice": slices,
    "SpaceToDepth": space_to_depth,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
