"""The graph that is split: nodes with row rules and tensors with a row axis. No ONNX in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from distredge.graph.rows import RowRule, Rows

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One value of the graph.

    Attributes:
        name: unique in the graph.
        shape: all dimensions fixed. The row axis of a *partials* tensor has size 0: it holds one
            row per participating device, and only the plan knows how many.
        dtype: numpy's name (`float32`, `uint8`, `object` for strings).
        row_axis: the axis along which it is split, or None for a whole tensor.
        constant: part of the model; every device has it.
        quantum: cuts of this tensor are best placed on multiples of this many rows.
        partial_of: for a partials tensor, the tensor that was reduced; its owned rows are what each
            device contributes.
        dynamic: the shape depends on the data (NonZero, NonMaxSuppression); `shape` is that of one
            sample. Such a tensor is always whole. One of dtype `object` may also be a sequence or optional.
    """

    name: str
    shape: Shape
    dtype: str
    row_axis: int | None = None
    constant: bool = False
    quantum: int = 1
    partial_of: str | None = None
    dynamic: bool = False

    @property
    def rows(self) -> int:
        """Rows in all; 1 for a whole tensor."""
        return 1 if self.row_axis is None else self.shape[self.row_axis]

    @property
    def all_rows(self) -> Rows:
        """From the first row to the last."""
        return Rows(0, self.rows)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; of everything, for a whole tensor."""
        size = 8 if self.dtype == "object" else np.dtype(self.dtype).itemsize
        kept = (d for axis, d in enumerate(self.shape) if axis != self.row_axis)
        return size * prod(kept)

    @property
    def total_bytes(self) -> int:
        """Of the whole tensor."""
        return self.row_bytes * self.rows


@dataclass(frozen=True, slots=True)
class Node:
    """One operation.

    Attributes:
        name: unique in the graph.
        source: the node's name in the simplified ONNX model. A reduction becomes two nodes with one
            source: `form` "partial" (every device, over the rows it owns) and "combine" (whole).
        inputs: tensor names in the operator's order, "" for an absent optional one.
        rule: the row rule; `barrier` and `combine` read everything whole.
        macs: multiply-accumulates for the whole output.
        reason: for a barrier, why it is one, in words for the user.
    """

    name: str
    source: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rule: RowRule
    form: str = "node"
    macs: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Graph:
    """A model with fixed shapes, ready to be split.

    Attributes:
        nodes: in topological order.
        tensors: by name, constants included.
        inputs, outputs: names, in the model's order.
        cut_points: tensors after whose producer the depth may be cut, in topological order. A cut
            named T separates T's producer and all nodes before it from those behind.
        digest: SHA-256 of the simplified model's graph, weights left out.
    """

    name: str
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    cut_points: tuple[str, ...]
    digest: str = ""

    @cached_property
    def producer(self) -> dict[str, int]:
        """Index of the node that makes each tensor; graph inputs and constants are not in it."""
        return {out: i for i, node in enumerate(self.nodes) for out in node.outputs if out}

    @cached_property
    def consumers(self) -> dict[str, tuple[int, ...]]:
        """Indices of the nodes that read each tensor."""
        found: dict[str, list[int]] = {}
        for i, node in enumerate(self.nodes):
            for name in dict.fromkeys(node.inputs):
                if name:
                    found.setdefault(name, []).append(i)
        return {name: tuple(at) for name, at in found.items()}

    def is_split(self, index: int) -> bool:
        """Whether devices share this node's work by rows (it makes rows, or partials from rows)."""
        node = self.nodes[index]
        return any(self.tensors[out].row_axis is not None for out in node.outputs if out)

    @cached_property
    def tail(self) -> frozenset[int]:
        """Nodes that run whole, on one device: no rows are made from what they give."""
        return self._last(frozenset(i for i in range(len(self.nodes)) if not self.is_split(i)))

    @cached_property
    def head(self) -> frozenset[int]:
        """Nodes behind the last rows of maps and in front of the tail: fully connected layers that are shared
        out by features, what follows them feature by feature, and what stands between."""
        made: set[str] = set()
        for i, node in enumerate(self.nodes):
            if node.rule.kind == "features" or (self.is_split(i) and not made.isdisjoint(node.inputs)):
                made.update(filter(None, node.outputs))
        nodes = range(len(self.nodes))
        ends = (i for i in nodes if not self.is_split(i) or not made.isdisjoint(self.nodes[i].outputs))
        return self._last(frozenset(ends)) - self.tail

    @cached_property
    def trunk(self) -> tuple[int, ...]:
        """Nodes that are neither the head's nor the tail's."""
        return tuple(i for i in range(len(self.nodes)) if i not in self.tail and i not in self.head)

    @cached_property
    def head_cut(self) -> str:
        """Where the depth is cut between trunk and head; "" without a head, or where it cannot be."""
        if not self.head or not self.trunk:
            return ""
        name = next(filter(None, self.nodes[self.trunk[-1]].outputs))
        return name if name in self.cut_points else ""

    def _last(self, among: frozenset[int]) -> frozenset[int]:
        """Of these nodes, those behind which there are no others."""
        found: set[int] = set()
        for i in reversed(range(len(self.nodes))):
            behind = (c for out in self.nodes[i].outputs for c in self.consumers.get(out, ()))
            if i in among and all(c in found for c in behind):
                found.add(i)
        return frozenset(found)

    @cached_property
    def split_share(self) -> float:
        """Multiply-accumulates in nodes whose rows can be cut, over all; 1.0 for a model with none."""
        total = sum(node.macs for node in self.nodes)
        split = sum(node.macs for i, node in enumerate(self.nodes) if self.is_split(i))
        return split / total if total else 1.0
