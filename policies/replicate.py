"""`replicate`: whole frames, dealt to devices by speed; no split at all."""

from __future__ import annotations

from dataclasses import dataclass

from distredge.plan.policy import Decision, PlanningProblem
from distredge.plan.strategy import Strategy
from policies.offload import Offload
from policies.parts import fits, single_device


@dataclass(frozen=True)
class Replicate:
    """The trivial answer for throughput, which no split may lose to without saying so.

    A single frame takes the device that answers soonest, as `offload` has it: that is the strategy. A
    stream's frames are dealt to every device that can hold the model: `Decision.replicas`.
    """

    name: str = "replicate"

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """What one frame alone takes.

        Raises:
            PolicyError: no device can hold the model.
        """
        return Offload().find_strategy(problem)

    def decide(self, problem: PlanningProblem) -> Decision:
        """The strategy of one frame, and the devices that share a stream.

        Raises:
            PolicyError: no device can hold the model.
        """
        able = [d for d in range(len(problem.devices)) if fits(problem, single_device(problem, d))]
        return Decision(self.find_strategy(problem), self.name, replicas=tuple(able))
