"""An OSDS actor for `Adaptation`: it decides at once, and is fine-tuned while nothing is urgent."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from distredge.control.replan import BUDGET_S, replan
from distredge.plan.policy import PlanningProblem, get_policy
from distredge.plan.strategy import Strategy

LEAST_S = 0.02
"""For `replan`, however long the actor took."""
TUNING_S = 2.0
"""Of a second look, for what the actor learns of the conditions as they are now."""
SEARCH_S = 0.5
"""And for the search that starts from what it met."""


class Learned:
    """What a trained actor proposes.

    It never has the last word: `replan` starts from its decision as well as from the strategy in use, and the
    simulator takes the best.

    Args:
        problem: of the model and the number of devices that it was trained for.
        actor: `policies.osds_agent.Agent`, or the file that `distredge plan --policy osds
            --save-actor` wrote.

    Raises:
        PolicyError: the actor cannot be read, was trained for something else, or torch is not installed.
    """

    def __init__(self, problem: PlanningProblem, actor: object) -> None:
        osds: Any = get_policy("osds", actor=actor)
        osds.trained.check(problem)
        self._osds = osds

    def quick(self, problem: PlanningProblem, strategy: Strategy, spare: tuple[Strategy, ...]) -> Strategy:
        """The actor's decision for the problem as it is now, and `replan` from there."""
        begun = time.perf_counter()
        decided = self._osds.trained.decide(problem)
        left_s = BUDGET_S - (time.perf_counter() - begun)
        return replan(problem, strategy, max(LEAST_S, left_s), spare=(decided, *spare))

    def search(self, problem: PlanningProblem, strategy: Strategy) -> Strategy:
        """Fine-tunes the actor, and searches from the best strategy that it met."""
        tuned = self._osds.find_strategy(replace(problem, budget_s=TUNING_S))
        search = get_policy("search", starts=(strategy, tuned), threads=1)
        return search.find_strategy(replace(problem, budget_s=SEARCH_S))
