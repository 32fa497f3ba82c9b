"""Device types that are stated rather than measured: every table made with them must say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distredge.cluster.segment import Segment, node_rows, segment_rows
from distredge.graph.model import Graph


@dataclass(frozen=True, slots=True)
class SyntheticDevice:
    """A type of device, by three numbers: `t(rows) = t0 + ceil(rows/g)·g·work_per_row/rate` per layer.

    Attributes:
        name: `synthetic-...`.
        flops: floating-point operations a second; a multiply-accumulate is two.
        t0_s: what a layer costs, whatever its size.
        granularity: g, the rows that cost as much as one: the staircase that GPUs show.
        feature_work: how many multiply-accumulates one of a layer that is shared out by features counts as.
    """

    name: str
    flops: float
    t0_s: float
    granularity: int
    feature_work: float = 1.0

    def on(self, graph: Graph) -> SyntheticTimes:
        """This device's times for one model."""
        return SyntheticTimes(self, graph)


@dataclass(frozen=True)
class SyntheticTimes:
    """A ComputeTimes made by formula.

    A layer is a node with multiply-accumulates; all others are free. Rows of a segment stand for the same
    share, rounded up, of each of its layers. A layer that runs whole costs its whole, for any rows but 0.
    """

    type: SyntheticDevice
    graph: Graph

    @property
    def device(self) -> str:
        """Name of the device type."""
        return self.type.name

    @property
    def segments(self) -> tuple[tuple[int, ...], ...]:
        """None: any node can be asked for alone."""
        return ()

    @property
    def boundary_fixed_s(self) -> float:
        """Stated as free."""
        return 0.0

    @property
    def boundary_s_per_byte(self) -> float:
        """Stated as free."""
        return 0.0

    @property
    def coding_s_per_byte(self) -> Mapping[str, tuple[float, float]]:
        """Not stated."""
        return {}

    def seconds(self, segment: Segment, rows: int) -> float:
        """Seconds for `rows` rows of the segment; 0 for no rows."""
        return float(self._seconds(segment, np.array([rows]))[0])

    def table(self, segment: Segment, max_rows: int) -> NDArray[np.float64]:
        """Seconds for 0 to `max_rows` rows, of shape (max_rows + 1,)."""
        return self._seconds(segment, np.arange(max_rows + 1))

    def _seconds(self, segment: Segment, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        height = segment_rows(self.graph, segment)
        step = self.type.granularity
        total = np.zeros(len(rows))
        for index in segment:
            macs, own = self._layers[index]
            if not macs:
                continue
            if own:
                computed = -(-rows * own // height)
                share = -(-computed // step) * step / own
            else:
                share = np.ones(len(rows))
            total += self.type.t0_s + share * (2 * macs / self.type.flops)
        return np.where(rows > 0, total, 0.0)

    @cached_property
    def _layers(self) -> list[tuple[float, int]]:
        """For each node, its multiply-accumulates and its rows (0: runs whole)."""
        factor = {"features": self.type.feature_work}
        return [
            (node.macs * factor.get(node.rule.kind, 1.0), node_rows(self.graph, i))
            for i, node in enumerate(self.graph.nodes)
        ]
