"""What a policy decides: where the depth is cut, and how each volume's rows are shared out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from distredge.graph.rows import Rows


@dataclass(frozen=True, slots=True)
class PartitionScheme:
    """Where the depth is cut into layer-volumes.

    Attributes:
        cuts: names of tensors out of `Graph.cut_points`, in topological order. n cuts make n + 1
            volumes. The tail (`Graph.tail`) is in no volume: it runs behind the last one.
    """

    cuts: tuple[str, ...] = ()

    @property
    def volumes(self) -> int:
        """How many volumes the cuts make."""
        return len(self.cuts) + 1


@dataclass(frozen=True, slots=True)
class SplitDecision:
    """How one volume's rows are shared out.

    Attributes:
        bounds: `devices + 1` row numbers of the volume's reference tensor, from 0 to its rows, never
            falling; device i has rows `[bounds[i], bounds[i + 1])`. Other tensors are cut at the same
            fraction: see `scaled`.
    """

    bounds: tuple[int, ...]

    @classmethod
    def from_shares(cls, rows: int, shares: list[float] | tuple[float, ...]) -> SplitDecision:
        """Bounds for shares of any positive sum, rounded so that they add up to `rows`."""
        total = sum(shares)
        bounds, seen = [0], 0.0
        for share in shares:
            seen += share
            bounds.append(round(rows * seen / total))
        return cls(tuple(bounds))

    @property
    def devices(self) -> int:
        """How many devices share the rows."""
        return len(self.bounds) - 1

    @property
    def rows(self) -> int:
        """Of the reference tensor."""
        return self.bounds[-1]

    def part(self, device: int) -> Rows:
        """The rows of the reference tensor that this device owns."""
        return Rows(self.bounds[device], self.bounds[device + 1])

    def scaled(self, rows: int, quantum: int = 1) -> SplitDecision:
        """The same decision on a tensor of another height.

        The one rounding rule: a bound b of R rows becomes the multiple of `quantum` nearest to
        b * rows / R, halves upwards; the last bound is always `rows`.
        """
        if rows == self.rows and quantum == 1:
            return self
        scaled = [(2 * b * rows + self.rows * quantum) // (2 * self.rows * quantum) for b in self.bounds]
        bounds = [min(rows, q * quantum) for q in scaled]
        return SplitDecision(
            tuple(rows if b == self.rows else new for b, new in zip(self.bounds, bounds, strict=True))
        )

    @property
    def is_valid(self) -> bool:
        """Whether the bounds rise from 0."""
        return len(self.bounds) > 1 and self.bounds[0] == 0 and all(a <= b for a, b in pairwise(self.bounds))


@dataclass(frozen=True, slots=True)
class Strategy:
    """The whole decision; `compile_plan` turns it into an ExecutionPlan.

    Attributes:
        scheme: where the depth is cut.
        splits: one decision per volume.
        tail_device: index of the device that runs the tail; None: the one with most rows in the last
            volume.
    """

    scheme: PartitionScheme
    splits: tuple[SplitDecision, ...]
    tail_device: int | None = None

    @property
    def devices(self) -> int:
        """How many devices it is for."""
        return self.splits[0].devices

    def embedded(self, members: Sequence[int], devices: int) -> Strategy:
        """The same decision among more devices, of which all but the members have no rows.

        Args:
            members: numbers among all devices, rising; one per device of this strategy.
            devices: how many there are in all.
        """
        tail = None if self.tail_device is None else members[self.tail_device]
        splits = tuple(
            SplitDecision((0, *(split.bounds[bisect_right(members, device)] for device in range(devices))))
            for split in self.splits
        )
        return Strategy(self.scheme, splits, tail)
