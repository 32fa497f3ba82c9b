"""`equal`: one volume per pooling stage, the same number of rows for every device."""

from __future__ import annotations

from dataclasses import dataclass

from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import Strategy
from policies.cuts import stage_cuts
from policies.memory import fitted
from policies.parts import shared_out


@dataclass(frozen=True)
class Equal:
    """What one does who has measured nothing [O]."""

    name: str = "equal"

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """Equal rows.

        Raises:
            PolicyError: the model does not fit into memory.
        """
        shares = [1.0] * len(problem.devices)
        return fitted(problem, shared_out(problem.graph, stage_cuts(problem.graph), shares))
