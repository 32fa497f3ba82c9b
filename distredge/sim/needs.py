"""Which rows the outputs depend on, and how few input rows a node can do with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distredge.graph.model import Graph
from distredge.graph.rows import RowRule, Rows

Mask = NDArray[np.bool_]


class RowNeeds:
    """The needed rows of one graph.

    Attributes:
        rows: how many rows of each tensor some output depends on; 1 for a needed whole tensor. Tensors
            that nothing depends on, and constants, are not in it.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._spans: dict[tuple[RowRule, int], list[NDArray[np.int64] | None]] = {}
        self._least: dict[tuple[RowRule, int, int], float] = {}
        masks: dict[str, Mask] = {
            name: np.ones(graph.tensors[name].rows, dtype=np.bool_) for name in graph.outputs
        }
        for i in reversed(range(len(graph.nodes))):
            outs = [masks[name] for name in graph.nodes[i].outputs if name in masks]
            if outs:
                longest = max(len(mask) for mask in outs)
                out = np.logical_or.reduce([mask for mask in outs if len(mask) == longest])
                self._backwards(i, out, masks)
        self.rows = {name: int(mask.sum()) for name, mask in masks.items()}

    def least(self, node: int) -> list[tuple[str, float]]:
        """Per rowed input of a node, the smallest number of its rows per row that the node computes.

        A node that reads all rows has them at hand even if it computes few of its own; a partial reduction
        needs its input row by row; constants are left out.
        """
        graph, spec = self._graph, self._graph.nodes[node]
        found = []
        for position, name in enumerate(spec.inputs):
            if not name or graph.tensors[name].constant or graph.tensors[name].row_axis is None:
                continue
            if spec.form == "partial":
                found.append((name, 1.0))
            elif self._reads_rows(node, position):
                found.append((name, self._ratio(node, position)))
            else:
                rows = self._height(node) if graph.is_split(node) else 1
                found.append((name, graph.tensors[name].rows / rows))
        return found

    def _reads_rows(self, node: int, position: int) -> bool:
        spec = self._graph.nodes[node]
        return (
            spec.form == "node"
            and self._graph.is_split(node)
            and spec.rule.axes[position] is not None
            and self._graph.tensors[spec.inputs[position]].row_axis is not None
        )

    def _height(self, node: int) -> int:
        outputs = (self._graph.tensors[name] for name in self._graph.nodes[node].outputs if name)
        return max(tensor.rows for tensor in outputs)

    def _span(self, node: int) -> list[NDArray[np.int64] | None]:
        """Per input, (start, stop) of the rows read for each single row of the output."""
        rule, height = self._graph.nodes[node].rule, self._height(node)
        if (rule, height) not in self._spans:
            needs = [rule.needs(Rows(row, row + 1)) for row in range(height)]
            self._spans[rule, height] = [
                None if any(rows is None for rows in column) else np.array(column, dtype=np.int64)
                for column in zip(*needs, strict=True)
            ]
        return self._spans[rule, height]

    def _ratio(self, node: int, position: int) -> float:
        key = (self._graph.nodes[node].rule, self._height(node), position)
        if key not in self._least:
            span = self._span(node)[position]
            self._least[key] = 0.0 if span is None else _least_ratio(span)
        return self._least[key]

    def _backwards(self, node: int, out: Mask, masks: dict[str, Mask]) -> None:
        graph = self._graph
        for position, name in enumerate(graph.nodes[node].inputs):
            if not name or graph.tensors[name].constant:
                continue
            rows = 1 if graph.tensors[name].partial_of else graph.tensors[name].rows
            mask = np.ones(rows, dtype=np.bool_)
            span = self._span(node)[position] if self._reads_rows(node, position) else None
            if span is not None:
                steps = np.zeros(rows + 1, dtype=np.int64)
                np.add.at(steps, span[out, 0], 1)
                np.add.at(steps, span[out, 1], -1)
                mask = np.cumsum(steps)[:-1] > 0
            masks[name] = masks[name] | mask if name in masks else mask


def _least_ratio(span: NDArray[np.int64]) -> float:
    """Over all ranges of output rows [a, b): rows from the first's start to the last's stop, per row."""
    rows = np.arange(len(span))
    if (span[:, 0] == rows).all() and (span[:, 1] == rows + 1).all():
        return 1.0
    sizes = span[None, :, 1] - span[:, None, 0]
    counts = rows[None, :] - rows[:, None] + 1
    return float((sizes[counts > 0] / counts[counts > 0]).min())
