"""Fully connected layers behind the last rows of maps: devices share out their output features as rows.

Each feature is made of the whole input and of its own weights, so a device needs the whole input, which is a
few thousand numbers, and holds the weights of its own features only, which are most of such a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from distredge.graph.operation import NotByRows, Operation, Ruling
from distredge.graph.rules import FeatureRule

LARGE_BYTES = 16_000_000
"""Weights from which on a layer is shared out. A small board reads so much from memory in 2 to 8 ms, which is
what it takes to give every device the whole input; smaller layers can hardly gain anything."""
QUANTUM = 64
"""Features by which cuts move: the engine lays weights out in blocks of 16, and a search through fewer cuts
is done sooner."""
_FLOATS = ("float16", "float32", "float64")


def is_large(op: Operation) -> bool:
    """Whether this is a fully connected layer that is worth sharing out."""
    if op.op_type not in ("Gemm", "MatMul") or not op.constant[1] or op.dtypes[1] not in _FLOATS:
        return False
    return len(op.shape(1)) == 2 and np.dtype(op.dtypes[1]).itemsize * prod(op.shape(1)) >= LARGE_BYTES


def features(op: Operation) -> Ruling:
    """The ruling of a layer that `is_large`.

    Raises:
        NotByRows: it is of an uncommon form.
    """
    out = op.out_shapes[0]
    if len(out) != 2 or out[1] < 2 or op.constant[0]:
        raise NotByRows(f"{op.op_type} is no layer of several features")
    rule_axes: list[int | None] = [None, 0 if op.attributes.get("transB", 0) else 1]
    if len(op.inputs) > 2:
        rule_axes.append(_bias_axis(op, out[1]) if op.has(2) else None)
    return Ruling(FeatureRule(tuple(rule_axes)), (1,), QUANTUM)


def _bias_axis(op: Operation, count: int) -> int | None:
    if not op.constant[2]:
        raise NotByRows(f"{op.op_type} adds what is computed")
    bias = op.shape(2)
    return len(bias) - 1 if bias and bias[-1] == count > 1 else None


def behind_maps(operations: Sequence[Operation], rulings: Sequence[Ruling]) -> frozenset[int]:
    """Operations that nothing that is split depends on: only there may layers be shared out by features, so
    that rows of maps never end for it."""
    read: set[str] = set()
    found: set[int] = set()
    for i in reversed(range(len(operations))):
        is_split = rulings[i].reduces or any(axis is not None for axis in rulings[i].out_axes)
        if is_split or not read.isdisjoint(operations[i].outputs):
            read.update(operations[i].inputs)
        else:
            found.add(i)
    return frozenset(found)
