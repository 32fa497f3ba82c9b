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
"""The engine keeps its own re-laid copy of the weights beside those of the file (docs/design/sessions.md)."""
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
        """Bytes of weights that a device keeps for these nodes."""
        return WEIGHT_COPIES * sum(self._weights[i] for i in nodes)

    def work_bytes(self, volume: Volume) -> float:
        """Bytes of the largest node's maps, and of inputs and outputs kept, for all rows of a volume."""
        peak = max((self._maps[i] for i in volume.nodes), default=0)
        kept = sum(self._graph.tensors[n].total_bytes for n in (*volume.inputs, *volume.outputs))
        return float(peak + FRAMES * kept)

    def of(self, strategy: Strategy) -> NDArray[np.float64]:
        """Bytes per device.

        A part's share of its volume's maps is taken with a tenth of the volume's rows for the halo.
        """
        weights = np.zeros(self._devices)
        work = np.zeros(self._devices)
        for volume, split in zip(find_volumes(self._graph, strategy.scheme), strategy.splits, strict=True):
            fixed, maps = self.weights_bytes(volume.nodes), self.work_bytes(volume)
            for device in range(self._devices):
                if part := split.part(device):
                    weights[device] += fixed
                    share = min(1.0, part.size / max(1, split.rows) + 0.1)
                    work[device] = max(work[device], maps * share)
        tail = tuple(sorted(self._graph.tail))
        if tail:
            device = tail_device(strategy)
            weights[device] += self.weights_bytes(tail)
            work[device] = max(work[device], max(self._maps[i] for i in tail))
        return weights + work
