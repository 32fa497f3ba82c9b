"""A policy of one's own: the best two devices, in proportion to their speed, in one volume."""

from __future__ import annotations

from itertools import combinations

from distredge.errors import PolicyError
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.sim.pricing import Pricer


class BestPair:
    """Tries every pair of devices, and keeps the one that the simulator says is fastest."""

    name = "best-pair"

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """The strategy for a problem.

        Raises:
            PolicyError: there is only one device.
        """
        if len(problem.devices) < 2:
            raise PolicyError("best-pair needs two devices; give more peers")
        pricer = Pricer(problem)
        speeds = pricer.speeds()
        scheme = PartitionScheme()  # no cuts: one volume
        (volume,) = find_volumes(problem.graph, scheme)
        candidates = []
        for pair in combinations(range(len(speeds)), 2):
            shares = [float(speed) if at in pair else 0.0 for at, speed in enumerate(speeds)]
            candidates.append(Strategy(scheme, (SplitDecision.from_shares(volume.rows, shares),)))
        return min(candidates, key=pricer.latency_s)
