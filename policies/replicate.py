"""`replicate`: whole frames, dealt to devices by speed; no split at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import Strategy
from policies.offload import Offload
from policies.parts import fits, single_device


@dataclass(frozen=True)
class Replicate:
    """The trivial answer for throughput, which no split may lose to without saying so.

    A single frame takes the device that answers soonest, as `offload` has it. A stream's frames are dealt to
    every device that can hold the model.
    """

    plans_streams: ClassVar[bool] = True
    name: str = "replicate"

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """The best device alone, and beside it each other one.

        Raises:
            PolicyError: no device can hold the model.
        """
        best = Offload().find_strategy(problem)
        each = (single_device(problem, device) for device in range(len(problem.devices)))
        return Strategy.dealt([best, *(way for way in each if way != best and fits(problem, way))])
