"""`auto`: the best of everything else that fits its time, under the simulator. What a user gets."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

from distredge.errors import PolicyError
from distredge.plan.objective import LATENCY
from distredge.plan.policy import Decision, PlanningProblem, Policy, get_policy
from distredge.plan.strategy import Strategy
from policies.aofl import AOFL
from policies.coedge import CoEdge
from policies.deeperthings import DeeperThings
from policies.deepthings import DeepThings
from policies.equal import Equal
from policies.large import MOST, among, for_all, strongest
from policies.lcpss import LCPSS
from policies.mednn import MeDNN
from policies.modnn import MoDNN
from policies.offload import Offload
from policies.parts import pricer_for
from policies.proportional import Proportional
from policies.search import Search
from policies.streaming import Streaming

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


LEARN_FROM_S = 30.0
"""With so much time, `osds` is trained too."""
FRAME_SHARE = 0.5
"""Of the budget, for one frame alone, where the objective is of a stream."""
OTHERS_SHARE = 0.5
"""Of the time left after the baselines, for `osds` and other policies that take what they are given."""


@dataclass(frozen=True)
class Auto:
    """Asks every baseline, then lets `search` improve on all of them for the rest of the budget [O].

    With the default budget it is never behind a baseline; a budget of a few milliseconds may end before all
    of them have been asked. With half a minute or more `osds` learns, if it is installed, before the search.

    Of more than two dozen devices it plans for the strongest, and says which.

    For a stream the answers are only a beginning: `Streaming` also deals whole frames out, to single devices
    and to groups that split them.

    Attributes:
        evaluations: strategies that the search prices; None: as many as the budget allows.
        others: further policies to ask, such as `osds` with a trained actor, which decides at once.
    """

    plans_streams: ClassVar[bool] = True
    name: str = "auto"
    evaluations: int | None = None
    others: tuple[Policy, ...] = ()

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
        if len(problem.devices) <= MOST or problem.objective.is_of_stream:
            return _Asking(self, problem).run()
        chosen = strongest(problem)
        return for_all(_Asking(self, among(problem, chosen)).run(), problem, chosen)


class _Asking:
    """One decision: what has been answered so far."""

    def __init__(self, auto: Auto, problem: PlanningProblem) -> None:
        self.auto = auto
        self.problem = problem
        self.begun = time.perf_counter()
        self.strategies: dict[str, Strategy] = {}
        self.latencies_s: dict[str, float] = {}
        self.problems: list[PolicyError] = []

    def run(self) -> Decision:
        if self.problem.objective.is_of_stream:
            return self._for_a_stream()
        self._ask_all(self.problem.budget_s)
        if not self.strategies:
            raise self.problems[0]
        winner = min(self.strategies, key=lambda name: self.latencies_s[name])
        return Decision(self.strategies[winner], winner, self.latencies_s)

    def _for_a_stream(self) -> Decision:
        whole = self.problem
        self.problem = replace(whole, objective=LATENCY)
        self._ask_all(FRAME_SHARE * whole.budget_s)
        return Streaming(whole, self.strategies, self.begun).decide()

    def _ask_all(self, budget_s: float) -> None:
        evaluations = self.auto.evaluations
        for policy in BASELINES:
            if self.strategies and evaluations is None and self._used_s() > BASELINES_SHARE * budget_s:
                break
            self._ask(policy, budget_s)
        others = self._others()
        for policy in others:
            self._ask(policy, OTHERS_SHARE * (budget_s - self._used_s()) / len(others))
        search = Search(evaluations=evaluations, starts=self._answers())
        self._ask(search, budget_s - self._used_s())

    def _used_s(self) -> float:
        return time.perf_counter() - self.begun

    def _others(self) -> list[Policy]:
        others = list(self.auto.others)
        if self.problem.budget_s >= LEARN_FROM_S and self.auto.evaluations is None and not others:
            with suppress(PolicyError):  # it needs packages that may not be there
                others.append(get_policy("osds"))
        return others

    def _answers(self) -> tuple[Strategy, ...]:
        """All strategies so far, the best first."""
        best_first = sorted(self.strategies, key=lambda name: self.latencies_s[name])
        return tuple(self.strategies[name] for name in best_first)

    def _ask(self, policy: Policy, budget_s: float) -> None:
        try:
            strategy = policy.find_strategy(replace(self.problem, budget_s=max(1e-3, budget_s)))
        except PolicyError as error:
            self.latencies_s[policy.name] = inf
            self.problems.append(error)
            return
        self.strategies[policy.name] = strategy
        self.latencies_s[policy.name] = pricer_for(self.problem).latency_s(strategy)
