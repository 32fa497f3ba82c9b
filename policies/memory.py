"""Makes a strategy fit the devices' memory: who cannot hold a part gets a smaller one, or none."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from distredge.errors import PolicyError
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.sim.memory import MemoryEstimate
from policies.parts import best_of, fits, memory_limits, pricer_for, with_best_tail

Floats = NDArray[np.float64]


def fitted(problem: PlanningProblem, strategy: Strategy) -> Strategy:
    """The strategy itself if it fits; else rows move from devices that are too small to those with room.

    Raises:
        PolicyError: the devices together cannot hold the model so.
    """
    if fits(problem, strategy):
        return with_best_tail(problem, strategy) if strategy.tail_device is None else strategy
    if problem.graph.head and strategy.tail_device is None:
        with suppress(PolicyError):  # the head may fit as a whole on another device
            return with_best_tail(problem, strategy)
    return _Fitting(problem, strategy).run()


class _Fitting:
    """Caps on the rows of each volume and device; they only ever fall."""

    def __init__(self, problem: PlanningProblem, strategy: Strategy) -> None:
        self.problem = problem
        self.scheme = strategy.scheme
        self.limits = memory_limits(problem)
        self.pricer = pricer_for(problem)
        self.memory: MemoryEstimate = self.pricer.memory
        self.volumes = find_volumes(problem.graph, strategy.scheme)
        self.heights = np.array([volume.rows for volume in self.volumes])
        splits = strategy.merged.splits
        self.wanted = np.array([[s.part(d).size for d in range(s.parts)] for s in splits], float)
        self.caps = np.repeat(self.heights[:, None].astype(float), len(problem.devices), axis=1)
        self.speeds = self.pricer.speeds()
        self.weights = np.array([self.memory.weights_bytes(volume.nodes) for volume in self.volumes])
        self.shared = np.array([self.memory.shared_bytes(volume.nodes) for volume in self.volumes])
        self.maps = np.array([self.memory.work_bytes(volume) for volume in self.volumes])

    def run(self) -> Strategy:
        for _ in range(4 * self.caps.size + 4):
            rows = self._rows()
            used = self._used(rows)
            over = np.where(used > self.limits, used / np.maximum(1.0, self.limits), 0.0)
            if not over.any():
                return self._finished(rows)
            self._lower(int(np.argmax(over)), rows)
        raise self._impossible()

    def _rows(self) -> NDArray[np.int64]:
        """Rows by volume and device: as wanted, and what a cap leaves over to those with room, by speed."""
        rows = np.minimum(self.wanted, self.caps)
        for at, height in enumerate(self.heights):
            while (left := height - rows[at].sum()) > 0.5:
                room = self.caps[at] - rows[at]
                takers = np.where(room > 0, np.where(rows[at] > 0, rows[at], 0.0), 0.0)
                if not takers.any():
                    takers = np.where(room > 0, self.speeds, 0.0)
                if not takers.any():
                    raise self._impossible()
                rows[at] += np.minimum(room, left * takers / takers.sum())
        ends = np.round(np.cumsum(rows, axis=1))
        ends[:, -1] = self.heights
        return np.diff(ends, prepend=0, axis=1).astype(np.int64)

    def _used(self, rows: NDArray[np.int64]) -> Floats:
        return self.memory.of(Strategy(self.scheme, self._splits(rows), self._tail(rows)))

    def _splits(self, rows: NDArray[np.int64]) -> tuple[SplitDecision, ...]:
        return tuple(SplitDecision((0, *(int(end) for end in np.cumsum(row)))) for row in rows)

    def _tail(self, rows: NDArray[np.int64]) -> int | None:
        """The device with most room left for the tail."""
        if not self.problem.graph.tail:
            return None
        left = self.limits - self.memory.of(Strategy(self.scheme, self._splits(rows), 0))
        tail = tuple(sorted(self.problem.graph.tail))
        left[0] += self.memory.weights_bytes(tail)
        best = left == left.max()
        return int(np.argmax(np.where(best, self.speeds, -1.0)))

    def _lower(self, device: int, rows: NDArray[np.int64]) -> None:
        """Takes rows from a device that is too small: a little of its largest part, or one whole part."""
        has = rows[:, device] > 0
        if not has.any():
            raise self._impossible()
        weights = np.where(has, self.weights + self.shared * rows[:, device] / self.heights, 0.0)
        left = self.limits[device] - weights.sum()
        if left < 0 and self._lower_features(device, rows, left):
            return
        biggest = int(np.argmax(np.where(has, self.maps * (rows[:, device] / self.heights + 0.1), -1.0)))
        share = left / max(1.0, self.maps[biggest]) - 0.1
        smaller = np.floor(share * self.heights[biggest])
        if 0 < smaller < rows[biggest, device]:
            self.caps[biggest, device] = smaller
        else:
            heaviest = int(np.argmax(np.where(has, weights, -1.0)))
            self.caps[heaviest if left < 0 else biggest, device] = 0

    def _lower_features(self, device: int, rows: NDArray[np.int64], left: float) -> bool:
        """Takes as many features from a device as its weights are too large by; whether there are so many."""
        has = self.shared * rows[:, device] / self.heights
        biggest = int(np.argmax(has))
        if has[biggest] + left <= 0:
            return False
        self.caps[biggest, device] = np.floor(
            (has[biggest] + left) / self.shared[biggest] * self.heights[biggest]
        )
        return True

    def _finished(self, rows: NDArray[np.int64]) -> Strategy:
        strategy = Strategy(self.scheme, self._splits(rows), self._tail(rows))
        if not self.problem.graph.tail:
            return strategy
        tails = [Strategy(self.scheme, strategy.splits, device) for device in range(len(self.limits))]
        return best_of(self.problem, [strategy, *tails])

    def _impossible(self) -> PolicyError:
        return PolicyError("the model does not fit into the devices' memory; add devices or raise memory_mb")
