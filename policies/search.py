"""`search`: annealing of a population of strategies: cuts, split decisions and the tail's device at once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from threading import Thread

from distredge.errors import PolicyError
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import Strategy
from policies.annealer import Annealer
from policies.cuts import distinct_cuts
from policies.lanes import useful_lanes, without_idle_lanes
from policies.memory import fitted
from policies.parts import fits, pricer_for
from policies.starts import fused_strategies, rearranged, simple_strategies

FUSED_FROM_S = 0.1
"""With less time than this, no linear model is asked where to start."""
FOUNDERS = 24
"""Starting points that are annealed, if time allows."""
FOUNDERS_SHARE = 0.3
"""Of the evaluations or the time, for these."""
MOST_THREADS = 4
"""Of a search that time ends."""
SEARCH_SHARE = 0.96
"""Of the budget; the rest is for the last polish and for taking out idle cuts."""
PLAIN_SHARE = 0.35
"""Of the evaluations or the time, for strategies without lanes. In the rest the best of them get lanes, and
so do the first starts again: good cuts are more and others where rows travel during computing, and from the
best ones without lanes there is often no way to them (on resnet50 a tenth slower)."""
CHEAPER = 4
"""How many times cheaper an evaluation is than the pricing of a start: most of them keep the cuts."""
LANES_COST = 0.1
"""By how much lanes must win, as a share of the latency. Messages take processor time that the simulator
counts as delay only: plans with lanes came out 14 % slower than predicted on the testbed, others 3 %."""
DECAY = 2.0
"""About how many of the best become parents of annealed children."""
FEWEST, CHILD, CHILDREN = 250, 1000, 30
"""Evaluations of each strategy that comes of crossing two: at least, at most, and as a part of all."""
HOT, WARM, COLD, FROZEN = 0.05, 0.012, 1e-3, 1e-4
"""Temperatures, as shares of the best latency: where founders and children start, where both end, and where
the last polish ends."""


ROUNDING = 1e-12
"""Latencies as close as this, relatively, are equal: the same sums in another order."""


@dataclass(frozen=True)
class Search:
    """A local search under the simulator [O]: the best-known answers of the comparison are long runs of it.

    Simulated annealing from the best of many simple strategies; then over and over one of the best found, up
    to a cut, is joined to another one behind it, and annealed for a little while. At the end cuts that cost
    nothing are taken out: each is one more session and message. Where the problem allows overlap, the best
    found are then annealed again with lanes.

    Attributes:
        evaluations: strategies to price. With a number the result depends on the seed alone; None: as many as
            the problem's budget allows.
        starts: strategies to start from as well: those of other policies, or the one in use, first, when a
            link has changed; of the first, also with one device's rows given to another.
        simple: whether to start from simple strategies too; without, `starts` must hold one.
        threads: of a search that time ends; None: as many as there are cores, up to four. Evaluations are
            counted in one thread.
    """

    name: str = "search"
    evaluations: int | None = None
    starts: tuple[Strategy, ...] = ()
    simple: bool = True
    threads: int | None = None

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """The best strategy met.

        Raises:
            PolicyError: the model does not fit into memory.
        """
        begun = time.perf_counter()
        laned = [start for start in self.starts if start.lanes]
        starts = [start.merged for start in self.starts]
        starts.extend(moved for start in self.starts[:1] for moved in rearranged(start))
        if self.simple:
            starts.extend(simple_strategies(problem))
            if self.evaluations is not None or problem.budget_s >= FUSED_FROM_S:
                starts.extend(fused_strategies(problem))
        starts = _fitting(problem, starts)
        annealer = Annealer(problem, with_cuts_of(starts, problem))
        annealer.seed(problem.seed)
        if not problem.overlap:
            return _Run(self, annealer, begun, 1.0, 1.0).run(starts, HOT)
        plain = _Run(self, annealer, begun, PLAIN_SHARE, PLAIN_SHARE).run(starts, HOT)
        return self._overlapped(annealer, begun, [plain, *annealer.population], starts, laned)

    def _overlapped(
        self,
        plain: Annealer,
        begun: float,
        found: Sequence[Strategy],
        first: Sequence[Strategy],
        laned: Sequence[Strategy],
    ) -> Strategy:
        """The best with lanes, if it is better than the best without, which is the first found.

        Args:
            plain: what has found them.
            begun: when the search began.
            found: strategies without lanes, and `first`, where their search started.
            laned: others to start from, with lanes.
        """
        lanes = useful_lanes(found[0])
        starts = [start.with_lanes(lanes) for start in (*found, *first)]
        starts.extend(start for start in laned if start.lanes == lanes)
        annealer = Annealer(plain.problem, plain.cuts, lanes)
        best = _Run(self, annealer, begun, 1.0 - PLAIN_SHARE, 1.0).run(starts, WARM)
        best = without_idle_lanes(best, annealer.price, ROUNDING)
        if not best.has_lanes:
            best = best.merged
        worth = 1.0 if laned or not best.lanes else 1.0 - LANES_COST  # what is in use stays sooner
        pricer = pricer_for(plain.problem)
        return best if pricer.latency_s(best) < worth * pricer.latency_s(found[0]) else found[0]


class _Run:
    """One search, and what is left of its evaluations or time.

    Args:
        search: its settings.
        annealer: what strategies may be.
        begun: when the search began.
        share: of the evaluations, for this run.
        ends: share of the time after which this run ends.
    """

    def __init__(self, search: Search, annealer: Annealer, begun: float, share: float, ends: float) -> None:
        self.annealer = annealer
        timed = search.evaluations is None
        self.evaluations = None if search.evaluations is None else int(share * search.evaluations)
        self.child = CHILD
        self.deadline = begun + ends * SEARCH_SHARE * annealer.problem.budget_s if timed else inf
        self.threads = (search.threads or min(MOST_THREADS, len(os.sched_getaffinity(0)))) if timed else 1

    def run(self, starts: Sequence[Strategy], hot: float) -> Strategy:
        """The best strategy met.

        Args:
            starts: where to begin.
            hot: temperature there.
        """
        begun = time.perf_counter()
        priced = sorted((self.annealer.price(start), at) for at, start in enumerate(starts))
        rate = len(starts) / max(1e-6, time.perf_counter() - begun)
        order = dict(reversed(priced))  # one for each latency
        best = starts[priced[0][1]]
        self.annealer.anneal(best, 1, COLD, COLD)
        if self.annealer.cuts:
            whole = self._whole(rate)
            self.child = min(CHILD, max(FEWEST, whole // CHILDREN))
            count = min(FOUNDERS, max(1, whole // (3 * CHILD)))
            founders = [starts[at] for _, at in sorted(order.items())[:count]]
            self._in_threads(founders, hot)
        else:
            self.annealer.anneal(best, self._left(self.annealer), hot, COLD, self.deadline)
        self.annealer.anneal(self.annealer.best, CHILD, COLD, FROZEN, inf)
        return _simplified(self.annealer, self.annealer.best)

    def _whole(self, rate: float) -> int:
        """Evaluations that there will be, about."""
        if self.evaluations is not None:
            return self.evaluations
        return int(CHEAPER * self.threads * rate * max(0.0, self.deadline - time.perf_counter()))

    def _in_threads(self, founders: Sequence[Strategy], hot: float) -> None:
        """Every thread anneals some founders, and then children of the common population."""
        others = [self.annealer.twin() for _ in range(1, min(self.threads, len(founders)))]
        count = 1 + len(others)
        threads = [
            Thread(target=self._work, args=(other, at, founders[at::count], hot), daemon=True)
            for at, other in enumerate(others, start=1)
        ]
        for thread in threads:
            thread.start()
        self._work(self.annealer, 0, founders[::count], hot)
        for thread in threads:
            thread.join()

    def _work(self, annealer: Annealer, number: int, founders: Sequence[Strategy], hot: float) -> None:
        if number:
            annealer.seed(annealer.problem.seed + 7919 * number)
        begun = time.perf_counter()
        for at, start in enumerate(founders, start=1):
            if self.evaluations is not None:
                annealer.anneal(start, int(FOUNDERS_SHARE * self.evaluations / len(founders)), hot, COLD)
            else:
                share = FOUNDERS_SHARE * (self.deadline - begun) * at / len(founders)
                annealer.anneal(start, inf, hot, COLD, begun + share)
        while (left := self._left(annealer)) > 0:
            annealer.anneal_child(DECAY, min(self.child, left), WARM, COLD, self.deadline)

    def _left(self, annealer: Annealer) -> float:
        """Evaluations left; with a time limit, infinitely many until it is over."""
        if self.evaluations is not None:
            return max(0, self.evaluations - CHILD - annealer.evaluations)
        return inf if time.perf_counter() < self.deadline else 0


def _simplified(annealer: Annealer, strategy: Strategy) -> Strategy:
    """Takes out cuts without which it is no slower."""
    latency = annealer.price(strategy)
    cut = len(strategy.scheme.cuts) - 1
    while cut >= 0:
        for keep in (cut, cut + 1):
            joined = annealer.without(strategy, cut, keep)
            found = annealer.price(joined)
            if found <= latency * (1 + ROUNDING):
                strategy, latency = joined, found
                break
        cut -= 1
    return strategy


def _fitting(problem: PlanningProblem, starts: list[Strategy]) -> list[Strategy]:
    """Those that fit into memory; if none does, one that can be made to.

    Raises:
        PolicyError: none can.
    """
    found = [strategy for strategy in dict.fromkeys(starts) if fits(problem, strategy)]
    problems = []
    for strategy in [] if found else reversed(starts):
        try:
            return [fitted(problem, strategy)]
        except PolicyError as error:
            problems.append(error)
    if problems:
        raise problems[0]
    return found


def with_cuts_of(strategies: Iterable[Strategy], problem: PlanningProblem) -> tuple[str, ...]:
    """All distinct cuts and those of these strategies, in topological order."""
    graph = problem.graph
    cuts = set(distinct_cuts(graph)).union(*(strategy.scheme.cuts for strategy in strategies))
    return tuple(sorted(cuts, key=lambda cut: graph.producer[cut]))
