"""`auto`: the best of everything else that fits its time, under the simulator. What a user gets."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from math import inf

from distredge.errors import PolicyError
from distredge.plan.policy import Decision, PlanningProblem, Policy
from distredge.plan.strategy import Strategy
from policies.aofl import AOFL
from policies.coedge import CoEdge
from policies.deeperthings import DeeperThings
from policies.deepthings import DeepThings
from policies.equal import Equal
from policies.lcpss import LCPSS
from policies.mednn import MeDNN
from policies.modnn import MoDNN
from policies.offload import Offload
from policies.parts import pricer_for
from policies.proportional import Proportional
from policies.search import Search

BASELINES: tuple[Policy, ...] = (
    Offload(),
    Equal(),
    Proportional(),
    MoDNN(),
    CoEdge(),
    DeepThings(),
    DeeperThings(),
    AOFL(),
    LCPSS(),
    MeDNN(),
)
"""From quick to slow; where two are equally good, the first is named."""
BASELINES_SHARE = 0.5
"""Of the budget, after which no further baseline is asked."""


@dataclass(frozen=True)
class Auto:
    """Asks every baseline, then lets `search` improve on all of them for the rest of the budget [O].

    With the default budget it is never behind a baseline; a budget of a few milliseconds may end before all
    of them have been asked.

    Attributes:
        evaluations: strategies that the search prices; None: as many as the budget allows.
    """

    name: str = "auto"
    evaluations: int | None = None

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """The best strategy found.

        Raises:
            PolicyError: the model does not fit into memory.
        """
        return self.decide(problem).strategy

    def decide(self, problem: PlanningProblem) -> Decision:
        """The best strategy found, whose it is, and the latency of each one that it was chosen from.

        Raises:
            PolicyError: the model does not fit into memory.
        """
        begun = time.perf_counter()
        pricer = pricer_for(problem)
        latencies: dict[str, float] = {}
        strategies: dict[str, Strategy] = {}
        problems: list[PolicyError] = []
        for policy in BASELINES:
            used_s = time.perf_counter() - begun
            if strategies and self.evaluations is None and used_s > BASELINES_SHARE * problem.budget_s:
                break
            try:
                strategies[policy.name] = policy.find_strategy(problem)
            except PolicyError as error:
                latencies[policy.name] = inf
                problems.append(error)
            else:
                latencies[policy.name] = pricer.latency_s(strategies[policy.name])
        search = Search(evaluations=self.evaluations, starts=tuple(strategies.values()))
        left = max(1e-3, problem.budget_s - (time.perf_counter() - begun))
        try:
            strategies[search.name] = search.find_strategy(replace(problem, budget_s=left))
        except PolicyError as error:
            latencies[search.name] = inf
            problems.append(error)
        else:
            latencies[search.name] = pricer.latency_s(strategies[search.name])
        if not strategies:
            raise problems[0]
        winner = min(strategies, key=lambda name: latencies[name])
        return Decision(strategies[winner], winner, latencies)
