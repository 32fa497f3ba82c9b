"""How rows are coded on the wire: what a user chooses, and what that makes of each tensor."""

from __future__ import annotations

from math import prod
from typing import Protocol

from distredge.errors import InputError
from distredge.graph.model import Graph

EXACT = "exact"
RAW, LOSSLESS, FP16, INT8 = "raw", "lossless", "fp16", "int8"
WIRES = (EXACT, RAW, FP16, INT8)
"""What a user may choose. Exact: packed losslessly where that pays, so that every answer is bit for bit what
it would be without. Raw: never packed."""
ROUNDED = (FP16, INT8)
CODINGS = (RAW, LOSSLESS, FP16, INT8)
"""How the rows of a transfer may travel. A sender may always fall back to RAW, and the message says so."""

SMALL_BYTES = 16 * 1024
"""Tensors of less are never rounded: messages cost more than their bytes, and nothing would be gained."""
GROUP_BYTES = 8
"""INT8 sends two floats for each group of numbers: where it begins, and the width of a step."""
FLOATS = ("float32", "float16")


class Shaped(Protocol):
    """A tensor, as a graph or a plan describes it."""

    @property
    def dtype(self) -> str:
        """numpy's name."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """All dimensions."""
        ...

    @property
    def row_axis(self) -> int | None:
        """None for a whole tensor."""
        ...


def check_wire(wire: object) -> str:
    """The choice, if there is such a one.

    Raises:
        InputError: there is not.
    """
    if wire not in WIRES:
        raise InputError(f"wire is {wire!r}; it may be {', '.join(WIRES[:-1])} or {WIRES[-1]}")
    return str(wire)


def coding_of(graph: Graph, name: str, wire: str) -> str:
    """How a tensor's rows travel under a choice.

    Only floats are touched. Never rounded are the model's inputs (a picture as float32 has few values: packed
    it is smaller than as half floats, and as uint8 smaller still) and outputs, partial results of reductions,
    and small tensors.
    """
    tensor = graph.tensors[name]
    if wire == RAW or tensor.dtype not in FLOATS or tensor.dynamic:
        return RAW
    kept = name in (*graph.inputs, *graph.outputs) or tensor.partial_of is not None
    kept = kept or tensor.total_bytes < SMALL_BYTES
    as_it_is = wire == EXACT or (wire == FP16 and tensor.dtype == "float16")
    return LOSSLESS if as_it_is or kept else wire


def group_count(tensor: Shaped) -> int:
    """Groups of numbers that INT8 rounds by a scale of their own: blocks of rows that lie together in memory.

    With channels in front of rows (NCHW), each channel has its own; a whole tensor has one.
    """
    return 1 if tensor.row_axis is None else prod(tensor.shape[: tensor.row_axis])


def whole_bytes(graph: Graph, name: str, wire: str) -> int:
    """Bytes of a whole tensor on the wire."""
    tensor = graph.tensors[name]
    row, beside = sent_sizes(tensor, coding_of(graph, name, wire), tensor.row_bytes)
    return row * tensor.rows + beside


def sent_sizes(tensor: Shaped, coding: str, row_bytes: int) -> tuple[int, int]:
    """Bytes of one row on the wire, and bytes of a message beside its rows; LOSSLESS counts as RAW.

    Args:
        tensor: whose rows.
        coding: how they travel.
        row_bytes: of one row in memory.
    """
    if coding == FP16:
        return row_bytes // 2, 0
    if coding == INT8:
        item = 2 if tensor.dtype == "float16" else 4
        return row_bytes // item, GROUP_BYTES * group_count(tensor)
    return row_bytes, 0
