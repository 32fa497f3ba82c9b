"""`proportional`: one volume per pooling stage, rows in proportion to measured speed."""

from __future__ import annotations

from dataclasses import dataclass

from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import Strategy
from policies.cuts import stage_cuts
from policies.memory import fitted
from policies.parts import pricer_for, shared_out


@dataclass(frozen=True)
class Proportional:
    """What one does who has measured the devices but not the links [O]."""

    name: str = "proportional"

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """Rows by speed on the whole model.

        Raises:
            PolicyError: the model does not fit into memory.
        """
        speeds = pricer_for(problem).speeds()
        return fitted(problem, shared_out(problem.graph, stage_cuts(problem.graph), speeds))
