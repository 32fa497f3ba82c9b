"""`offload`: everything on the one device that answers soonest."""

from __future__ import annotations

from dataclasses import dataclass

from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import Strategy
from policies.parts import best_of, single_device


@dataclass(frozen=True)
class Offload:
    """One volume, all rows on the device with the lowest simulated end-to-end latency."""

    name: str = "offload"

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """All rows on one device.

        Raises:
            PolicyError: no device can hold the model.
        """
        return best_of(problem, (single_device(problem, device) for device in range(len(problem.devices))))
