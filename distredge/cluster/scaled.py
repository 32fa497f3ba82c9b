"""A device that has become slower or faster than when it was measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distredge.cluster.segment import ComputeTimes, Segment


@dataclass(frozen=True)
class ScaledTimes:
    """Another device's times, all multiplied.

    Attributes:
        times: as measured.
        factor: 2.0 for half the speed.
    """

    times: ComputeTimes
    factor: float

    @property
    def segments(self) -> Collection[tuple[int, ...]]:
        """Those of the times underneath."""
        return self.times.segments

    @property
    def boundary_fixed_s(self) -> float:
        """What one more task costs, scaled too."""
        return self.factor * self.times.boundary_fixed_s

    @property
    def boundary_s_per_byte(self) -> float:
        """What a byte of a task's inputs and outputs costs, scaled too."""
        return self.factor * self.times.boundary_s_per_byte

    @property
    def coding_s_per_byte(self) -> Mapping[str, tuple[float, float]]:
        """What rounding a byte costs, scaled too."""
        known = self.times.coding_s_per_byte
        return {coding: (self.factor * there, self.factor * back) for coding, (there, back) in known.items()}

    @property
    def device(self) -> str:
        """The device underneath, and the factor."""
        return f"{self.times.device}, {self.factor:.2f} times as long"

    def seconds(self, segment: Segment, rows: int) -> float:
        """Seconds for that many rows."""
        return self.factor * self.times.seconds(segment, rows)

    def table(self, segment: Segment, max_rows: int) -> NDArray[np.float64]:
        """Seconds for 0, 1, ... `max_rows` rows."""
        return self.factor * self.times.table(segment, max_rows)
