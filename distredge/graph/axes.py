"""Which axis of each tensor is its rows: hypotheses for the inputs, followed through the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from distredge.graph.features import behind_maps, features, is_large
from distredge.graph.layouts import LAYOUTS
from distredge.graph.model import Shape
from distredge.graph.operation import NotByRows, Operation, Ruling
from distredge.graph.operators import POINTWISE, RANDOM, Builder, joint_quantum
from distredge.graph.resize import RESIZES
from distredge.graph.rules import Axes, WholeRule
from distredge.graph.windows import ROW_AXIS, WINDOWS

BUILDERS: dict[str, Builder] = {**POINTWISE, **LAYOUTS, **WINDOWS, **RESIZES}
"""Every operator that may be split; any other is a barrier."""

_BODIES = dict.fromkeys(
    ("If", "Loop", "Scan", "SequenceMap"), "a part of the model that runs on a condition or in a loop"
)
_MAX_HYPOTHESES = 64
BROADCASTING_OPSET = 7
"""Before it, products had to say how they broadcast, and onnxruntime has no kernels for them."""


@dataclass
class Rowing:
    """One way of giving every tensor a row axis.

    Attributes:
        axes: row axis of each tensor that has one.
        rulings: per operation.
        reasons: per operation, why rows end there; "" where they do not.
        score: multiply-accumulates split, operations split.
    """

    axes: dict[str, int] = field(default_factory=dict)
    quanta: dict[str, int] = field(default_factory=dict)
    rulings: list[Ruling] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    score: tuple[int, int] = (0, 0)


def follow(
    operations: Sequence[Operation],
    macs: Sequence[int],
    start: Mapping[str, int],
    shapes: Mapping[str, Shape],
    dynamic: frozenset[str],
    shared: frozenset[int] = frozenset(),
) -> Rowing:
    """Follow rows from the inputs' axes `start` through all operations.

    Args:
        dynamic: tensors whose shape depends on the data; whoever touches them is a barrier.
        shared: operations that are shared out by features.
    """
    rowing = Rowing(axes=dict(start))
    split_macs = split_nodes = 0
    drawn: set[str] = set()
    for at, (op, work) in enumerate(zip(operations, macs, strict=True)):
        axes = tuple(rowing.axes.get(name) for name in op.inputs)
        touched = any(name in dynamic for name in (*op.inputs, *op.outputs))
        if op.op_type in RANDOM or not drawn.isdisjoint(op.inputs):
            drawn.update(filter(None, op.outputs))
        try:
            if not drawn.isdisjoint(op.outputs):
                # Every device that ran it would draw numbers of its own.
                raise NotByRows(f"{op.op_type} depends on what is drawn at random")
            if touched:
                raise NotByRows("its shapes depend on the data")
            ruling, reason = features(op) if at in shared else rule_for(op, axes), ""
        except NotByRows as why:
            ruling = Ruling(WholeRule((None,) * len(axes)), (None,) * len(op.outputs))
            reason = str(why) if any(axis is not None for axis in axes) else ""
        rowing.rulings.append(ruling)
        rowing.reasons.append(reason)
        if ruling.reduces or any(axis is not None for axis in ruling.out_axes):
            split_macs, split_nodes = split_macs + work, split_nodes + 1
        if ruling.reduces:
            continue
        read = [
            rowing.quanta.get(name, 1)
            for name, axis in zip(op.inputs, ruling.rule.axes, strict=True)
            if axis is not None
        ]
        for name, axis in zip(op.outputs, ruling.out_axes, strict=True):
            if name and axis is not None:
                rowing.axes[name] = axis
                rowing.quanta[name] = _quantum(ruling, read, shapes[name][axis])
    rowing.score = (split_macs, split_nodes)
    return rowing


def _quantum(ruling: Ruling, read: list[int], rows: int) -> int:
    kind = ruling.rule.kind
    if kind == "window":
        return 1
    if kind == "features":
        return ruling.quantum if ruling.quantum < rows else 1
    if kind == "scaling":
        together = ruling.quantum * max(read, default=1) if ruling.quantum > 1 else 1
    else:
        together = joint_quantum(read, rows)
    return together if together <= rows else 1


def with_features(
    rowing: Rowing,
    operations: Sequence[Operation],
    macs: Sequence[int],
    inputs: Sequence[str],
    shapes: Mapping[str, Shape],
    dynamic: frozenset[str],
) -> Rowing:
    """The same rows of maps, and features of the large fully connected layers behind them."""
    behind = behind_maps(operations, rowing.rulings)
    shared = frozenset(i for i in behind if is_large(operations[i]))
    if not shared:
        return rowing
    start = {name: rowing.axes[name] for name in inputs if name in rowing.axes}
    return follow(operations, macs, start, shapes, dynamic, shared)


def rule_for(op: Operation, axes: Axes) -> Ruling:
    """The rule of one operation whose inputs have these row axes.

    Raises:
        NotByRows: its rows cannot be split, or there are none.
    """
    builder = BUILDERS.get(op.op_type)
    if all(axis is None for axis in axes):
        ruling = _restarted(op, axes, builder)
    elif builder is None:
        raise NotByRows(_BODIES.get(op.op_type) or f"unknown operator {op.op_type}")
    else:
        ruling = builder(op, axes)
    if ruling.reduces:
        if op.opset < BROADCASTING_OPSET:
            raise NotByRows(f"no partial results before opset {BROADCASTING_OPSET}")
        return ruling
    rows = {
        shape[axis]
        for name, shape, axis in zip(op.outputs, op.out_shapes, ruling.out_axes, strict=True)
        if name and axis is not None
    }
    if len(rows) != 1 or rows == {0}:
        raise NotByRows(f"{op.op_type} gives outputs of different heights")
    if rows == {1}:
        raise NotByRows(f"{op.op_type} makes one row of the whole map")
    for axis, read, shape in zip(axes, ruling.rule.axes, op.shapes, strict=True):
        if axis is not None and read != axis:
            raise NotByRows(f"{op.op_type} needs whole what comes in rows")
        if read is not None and (shape is None or shape[read] < 1):
            raise NotByRows(f"{op.op_type} reads an input without rows")
    return ruling


def _restarted(op: Operation, axes: Axes, builder: Builder | None) -> Ruling:
    """A window operator or Resize on a map that every device holds whole makes rows again."""
    if builder is None or op.constant[:1] != (False,):
        raise NotByRows("no rows")
    if op.op_type in RESIZES:
        return builder(op, axes)
    shape, out = op.shapes[0], op.out_shapes[0]
    if op.op_type not in WINDOWS or shape is None or len(shape) <= ROW_AXIS:
        raise NotByRows("no rows")
    if shape[ROW_AXIS] <= 1 or out[ROW_AXIS] <= 1:
        raise NotByRows("no rows")
    return builder(op, (ROW_AXIS, *axes[1:]))


def candidates(shape: Shape, dtype: str) -> list[int | None]:
    """Axes that may be an input's rows, most likely first; None: whole. A batch is not rows."""
    axes: list[int | None] = [a for a, size in enumerate(shape) if size > 1 and (a > 0 or len(shape) == 2)]
    axes.sort(key=lambda axis: (axis != ROW_AXIS, axis))
    return [*axes, None] if dtype != "object" else [None]


def best_rowing(
    operations: Sequence[Operation],
    macs: Sequence[int],
    inputs: Sequence[str],
    shapes: Mapping[str, Shape],
    dtypes: Mapping[str, str],
    dynamic: frozenset[str],
) -> Rowing:
    """The hypothesis that splits most work; among equals, the one that splits most operations and inputs."""
    choices = {name: candidates(shapes[name], dtypes[name]) if name in shapes else [None] for name in inputs}

    def tried(start: Mapping[str, int | None]) -> tuple[tuple[int, int, int], Rowing]:
        known = {name: axis for name, axis in start.items() if axis is not None}
        rowing = follow(operations, macs, known, shapes, dynamic)
        return (*rowing.score, len(known)), rowing

    count = 1
    for options in choices.values():
        count *= len(options)
    if count <= _MAX_HYPOTHESES:
        starts = [dict(zip(choices, combination, strict=True)) for combination in product(*choices.values())]
        return max((tried(start) for start in starts), key=lambda pair: pair[0])[1]
    # Too many inputs to try everything: improve one input at a time.
    current = {name: options[0] for name, options in choices.items()}
    for _ in range(2):
        for name, options in choices.items():
            current = max(
                ({**current, name: option} for option in options), key=lambda start: tried(start)[0]
            )
    return tried(current)[1]
