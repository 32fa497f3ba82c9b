"""How much memory a strategy needs on each device: an estimate that errs on the high side."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distredge.graph.model import Graph
from distredge.plan.compile import tail_device
from distredge.plan.strategy import Strategy
from distredge.plan.volumes import Volume, find_volumes

WEIGHT_COPIES = 2.0
"""The engine keeps its own re-laid copy of the weights beside those of the file."""
STORED_COPIES = 1.0
"""Weights that single vectors are multiplied by stay as they are in the file."""
FRAMES = 2
"""Frames whose inputs and outputs a device keeps at once."""


class MemoryEstimate:
    """Bytes by device: weights of the nodes that it runs, the largest task's maps, and what it keeps."""

    def __init__(self, graph: Graph, devices: int) -> None:
        self._graph = graph
        self._devices = devices

    @cached_property
    def _weights(self) -> list[int]:
        """Per node, bytes of its constants."""
        tensors = self._graph.tensors
        constant = [{n for n in node.inputs if n and tensors[n].constant} for node in self._graph.nodes]
        return [sum(tensors[name].total_bytes for name in names) for names in constant]

    def _is_shared(self, node: int) -> bool:
        """Whether a device has the weights of its own rows only."""
        return self._graph.nodes[node].rule.kind == "features"

    @cached_property
    def _maps(self) -> list[int]:
        """Per node, bytes of what it reads and makes, for all rows."""
        tensors = self._graph.tensors
        found = []
        for node in self._graph.nodes:
            names = {n for n in (*node.inputs, *node.outputs) if n and not tensors[n].constant}
            found.append(sum(tensors[name].total_bytes for name in names))
        return found

    def weights_bytes(self, nodes: tuple[int, ...]) -> float:
        """Bytes of weights that a device keeps for these nodes, however few of their rows it has."""
        return WEIGHT_COPIES * sum(self._weights[i] for i in nodes if not self._is_shared(i))

    def shared_bytes(self, nodes: tuple[int, ...]) -> float:
        """Bytes of weights of which a device keeps as large a share as it has of the rows."""
        return sum(self._copies(i) * self._weights[i] for i in nodes if self._is_shared(i))

    def _copies(self, node: int) -> float:
        made = self._graph.tensors[self._graph.nodes[node].outputs[0]]
        return STORED_COPIES if made.shape[0] == 1 else WEIGHT_COPIES

    def work_bytes(self, volume: Volume) -> float:
        """Bytes of the largest node's maps, and of inputs and outputs kept, for all rows of a volume."""
        peak = max((self._maps[i] for i in volume.nodes), default=0)
        kept = sum(self._graph.tensors[n].total_bytes for n in (*volume.inputs, *volume.outputs))
        return float(peak + FRAMES * kept)

    def of(self, strategy: Strategy) -> NDArray[np.float64]:
        """Bytes per device.

        A device's share of a volume's maps is taken with a tenth of the volume's rows for the halo. Lanes
        count together: what one of them has computed stays while the next one runs.
        """
        bounds = np.array([[split.bounds for split in strategy.merged.splits]], dtype=np.int64)
        tails = np.array([tail_device(strategy)])
        found: NDArray[np.float64] = self.of_batch(find_volumes(self._graph, strategy.scheme), bounds, tails)[
            0
        ]
        return found

    def of_batch(
        self, volumes: tuple[Volume, ...], bounds: NDArray[np.int64], tails: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """As `of`, for bounds of shape (batch, volumes, devices + 1); shape (batch, devices).

        Args:
            volumes: of the scheme.
            bounds: cut rows.
            tails: per strategy; -1: the device with most rows in the last volume.
        """
        parts = np.diff(bounds, axis=2)
        fixed = np.array([self.weights_bytes(volume.nodes) for volume in volumes])
        shared = np.array([self.shared_bytes(volume.nodes) for volume in volumes])
        maps = np.array([self.work_bytes(volume) for volume in volumes])
        rows = np.array([max(1, volume.rows) for volume in volumes])
        share = np.where(parts > 0, np.minimum(1.0, parts / rows[:, None] + 0.1), 0.0)
        weights = ((parts > 0) * fixed[:, None] + parts * (shared / rows)[:, None]).sum(axis=1)
        work = (share * maps[:, None]).max(axis=1)
        tail = tuple(sorted(self._graph.tail))
        if tail:
            device = np.where(tails < 0, parts[:, -1].argmax(axis=1), tails)
            at = np.arange(len(bounds))
            weights[at, device] += self.weights_bytes(tail)
            work[at, device] = np.maximum(work[at, device], max(self._maps[i] for i in tail))
        total: NDArray[np.float64] = weights + work
        return total
