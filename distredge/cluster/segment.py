"""Segments: lists of node indices whose compute time is looked up by rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distredge.graph.model import Graph

Segment = Sequence[int]


class ComputeTimes(Protocol):
    """How long one device needs for some rows of a segment of one model, measured or synthetic.

    Rows are those of the segment's tallest output (`segment_rows`).

    Attributes:
        segments: the lists of nodes that were measured together, each node in exactly one; empty where
            any node can be asked for alone (synthetic times).
        boundary_fixed_s: what one more task costs beside its nodes: a call into the engine.
        boundary_s_per_byte: what each byte of a task's inputs and outputs costs: a change of layout, a
            copy.
        coding_s_per_byte: by how rows are rounded on the wire (fp16, int8): what each byte of them in memory
            costs whoever sends it, and whoever receives it. Empty where nobody knows: then it counts as free.
    """

    @property
    def segments(self) -> Collection[tuple[int, ...]]:
        """See the class."""
        ...

    @property
    def boundary_fixed_s(self) -> float:
        """See the class."""
        ...

    @property
    def boundary_s_per_byte(self) -> float:
        """See the class."""
        ...

    @property
    def coding_s_per_byte(self) -> Mapping[str, tuple[float, float]]:
        """See the class."""
        ...

    @property
    def device(self) -> str:
        """What was measured or stated, by name."""
        ...

    def seconds(self, segment: Segment, rows: int) -> float:
        """Seconds for that many rows; 0 for no rows."""
        ...

    def table(self, segment: Segment, max_rows: int) -> NDArray[np.float64]:
        """Seconds for 0, 1, ... `max_rows` rows, of shape (max_rows + 1,); the first is 0."""
        ...


def segment_rows(graph: Graph, segment: Segment) -> int:
    """Rows of the segment's tallest output.

    Without a rowed output: of the tallest tensor that is reduced in it, else of its tallest input, and 1
    where nothing has rows. The same rule as for the reference tensor of a layer-volume.
    """
    members = set(segment)
    made = [out for i in segment for out in graph.nodes[i].outputs if out]
    outputs = [
        out
        for out in made
        if out in graph.outputs or any(c not in members for c in graph.consumers.get(out, ()))
    ]
    inputs = [
        name
        for i in segment
        for name in graph.nodes[i].inputs
        if name and graph.producer.get(name, -1) not in members
    ]
    reduced = [graph.tensors[out].partial_of for out in made]
    return _tallest(graph, outputs) or _tallest(graph, reduced) or _tallest(graph, inputs) or 1


def node_rows(graph: Graph, index: int) -> int:
    """Rows that a node computes for its whole output; of the tensor it reduces, for a partial reduction.

    0 for a node that runs whole, whatever rows a device has.
    """
    outputs = [out for out in graph.nodes[index].outputs if out]
    return _tallest(graph, [graph.tensors[out].partial_of or out for out in outputs])


def _tallest(graph: Graph, names: Iterable[str | None]) -> int:
    """0 if none of the tensors has rows."""
    tensors = [graph.tensors[name] for name in names if name]
    rowed = [t.rows for t in tensors if t.row_axis is not None and not t.constant and t.partial_of is None]
    return max(rowed, default=0)
