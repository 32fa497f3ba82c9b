"""`proportional`: one volume per pooling stage, rows in proportion to measured speed."""

from __future__ import annotations

from dataclasses import dataclass

from distredge.errors import PolicyError
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import Strategy
from policies.cuts import stage_cuts
from policies.memory import fitted
from policies.parts import best_of, pricer_for, shared_out
from policies.starts import Sharing


@dataclass(frozen=True)
class Proportional:
    """What one does who has measured the devices [O]. Large fully connected layers too are shared out by
    speed, if they answer sooner so than on one device."""

    name: str = "proportional"

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """Rows by speed on the whole model.

        Raises:
            PolicyError: the model does not fit into memory.
        """
        graph, speeds = problem.graph, pricer_for(problem).speeds()
        cuts = stage_cuts(graph)
        if not graph.head:
            return fitted(problem, shared_out(graph, cuts, speeds))
        found, problems = [], []
        for strategy in (shared_out(graph, cuts, speeds), Sharing(problem).strategies(cuts, speeds)[-1]):
            try:
                found.append(fitted(problem, strategy))
            except PolicyError as error:
                problems.append(error)
        if not found:
            raise problems[0]
        return best_of(problem, found)
