"""`auto`: the best of all policies under the simulator; what a user gets."""

from __future__ import annotations

import time
from dataclasses import dataclass
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

QUICK: tuple[type[Policy], ...] = (
    Offload,
    Equal,
    Proportional,
    AOFL,
    CoEdge,
    DeeperThings,
    DeepThings,
    MoDNN,
    MeDNN,
    LCPSS,
)
"""Those that decide without a search, the most promising first: time may run out before the last."""


@dataclass(frozen=True)
class Auto:
    """Asks every policy that fits the time, prices the answers, and lets `search` improve on the best [O].

    `search` starts from the best of them, so `auto` is never behind any policy that it had the time to ask.
    `osds` is asked by name: without a trained actor it needs a larger budget than most have.

    Attributes:
        evaluations: strategies that `search` prices; with a number the result depends on the seed alone.
            None: as many as the budget allows.
    """

    name: str = "auto"
    evaluations: int | None = None

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """The best strategy.

        Raises:
            PolicyError: no policy can decide here.
        """
        return self.decide(problem).strategy

    def decide(self, problem: PlanningProblem) -> Decision:
        """The best strategy, whose it is, and what the others would have taken.

        Raises:
            PolicyError: no policy can decide here.
        """
        pricer = pricer_for(problem)
        _warm_up(problem)
        begun = time.perf_counter()
        found: dict[str, Strategy] = {}
        latencies: dict[str, float] = {}
        refused: PolicyError | None = None
        for policy in (factory() for factory in QUICK):
            if self.evaluations is None and found and time.perf_counter() - begun > problem.budget_s / 2:
                break
            try:
                found[policy.name] = policy.find_strategy(problem)
                latencies[policy.name] = pricer.latency_s(found[policy.name])
            except PolicyError as error:
                refused, latencies[policy.name] = error, inf
        if not found:
            assert refused is not None
            raise refused
        left = max(0.0, problem.budget_s - (time.perf_counter() - begun))
        search = Search(evaluations=self.evaluations, starts=tuple(found.values()))
        found[search.name] = search.find_strategy(_with_budget(problem, left))
        latencies[search.name] = pricer.latency_s(found[search.name])
        winner = min(found, key=lambda name: latencies[name])
        return Decision(found[winner], winner, latencies)


def _warm_up(problem: PlanningProblem) -> None:
    """Loads the compiled search. The first time on a machine it is compiled, which takes longer than any
    budget and must not use it up."""
    try:
        Search(evaluations=Search.rounds, starts=(Offload().find_strategy(problem),)).find_strategy(problem)
    except PolicyError:
        return  # whoever is asked next says it


def _with_budget(problem: PlanningProblem, budget_s: float) -> PlanningProblem:
    return PlanningProblem(problem.graph, problem.devices, problem.network, problem.seed, budget_s)
