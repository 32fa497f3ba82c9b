"""`search`: simulated annealing over cuts, split decisions and the tail's device."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from distredge.errors import PolicyError
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import Strategy
from policies.annealer import Annealer
from policies.cuts import narrow_cuts
from policies.equal import Equal
from policies.offload import Offload
from policies.parts import pricer_for
from policies.proportional import Proportional


@dataclass(frozen=True)
class Search:
    """A local search under the simulator [O]: the best-known answers of the comparison are long runs of it.

    It anneals from the best of its starting points, `rounds` times, each from the best so far, hot at first and
    cooler in each later round.

    Attributes:
        evaluations: strategies to price. With a number the result depends on the seed alone; None: as many as
            the problem's budget allows.
        starts: further strategies to start from (those of other policies); the best is taken.
        rounds: how often to heat up again.
    """

    name: str = "search"
    evaluations: int | None = None
    starts: tuple[Strategy, ...] = ()
    rounds: int = 4

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """The best strategy met.

        Raises:
            PolicyError: the model does not fit into memory.
        """
        begun = time.perf_counter()
        starts = list(self.starts) or starting_points(problem)
        cuts = with_cuts_of(starts, problem)
        annealer = Annealer(problem, cuts)
        annealer.seed(problem.seed)
        best = min(starts, key=annealer.price)
        deadline = begun + problem.budget_s
        for at in range(self.rounds):
            until = None
            count = 1 << 62
            if self.evaluations is None:
                now = time.perf_counter()
                until = now + (deadline - now) / (self.rounds - at)
            else:
                count = self.evaluations // self.rounds
            best, _, _ = annealer.run(best, count, HOT / 3**at, COLD, until=until)
        return best


HOT, COLD = 0.05, 0.0002
"""Temperatures of the first round's start and of every round's end, as shares of the best latency."""


def starting_points(problem: PlanningProblem) -> list[Strategy]:
    """Simple strategies that fit into memory.

    Raises:
        PolicyError: none does.
    """
    found, problems = [], []
    for policy in (Offload(), Equal(), Proportional()):
        try:
            found.append(policy.find_strategy(problem))
        except PolicyError as error:
            problems.append(error)
    if not found:
        raise problems[0]
    return found


def with_cuts_of(strategies: Iterable[Strategy], problem: PlanningProblem) -> tuple[str, ...]:
    """The narrow cuts and all cuts of these strategies, in topological order."""
    graph = problem.graph
    cuts = set(narrow_cuts(graph)).union(*(strategy.scheme.cuts for strategy in strategies))
    return tuple(sorted(cuts, key=lambda cut: graph.producer[cut]))
