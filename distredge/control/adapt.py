"""Adaptation: another plan when what is measured is no longer what was planned for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from math import inf

from distredge.control.estimates import Estimates
from distredge.control.learned import Learned
from distredge.control.replan import plans_ahead, replan
from distredge.plan.policy import PlanningProblem, get_policy
from distredge.plan.strategy import Strategy
from distredge.runtime.tally import Review
from distredge.sim.pricing import Pricer
from distredge.sim.rates import stream_rate

_LOG = logging.getLogger(__name__)

NOISE = 1.2
"""Speeds and rates that changed by less are as they were."""
GAIN = 1.08
"""A new plan must be so much faster, under what is believed now, as to be worth the switch."""
CONFIRMED = 2
"""Reviews in a row that must see a change."""
SETTLED_S = 1.5
"""After a switch: until what is measured is the new plan's alone."""
QUICK_S = 0.2
"""For a decision at once of how frames are dealt out."""
THOROUGH_S = 1.0
"""For a second look at what was decided at once."""
AHEAD_S = 1.0
"""For plans for changes that have not happened."""
REMEMBERED = 3
"""Strategies that were in use before and are looked at again: conditions often come back."""

Search = Callable[[PlanningProblem, Strategy], Strategy]
Quick = Callable[[PlanningProblem, Strategy, tuple[Strategy, ...]], Strategy]
Ahead = Callable[[PlanningProblem, Strategy], tuple[Strategy, ...]]


def quick(problem: PlanningProblem, strategy: Strategy, spare: tuple[Strategy, ...]) -> Strategy:
    """Decided at once: `replan`, or `auto` with little time where frames may be dealt out."""
    if problem.objective.is_of_stream:
        return get_policy("auto").find_strategy(replace(problem, budget_s=QUICK_S))
    return replan(problem, strategy, spare=spare)


def thorough(problem: PlanningProblem, strategy: Strategy) -> Strategy:
    """The `search` policy with more time, from the strategy in use; `auto` where frames may be dealt out."""
    problem = replace(problem, budget_s=THOROUGH_S)
    if problem.objective.is_of_stream:
        return get_policy("auto").find_strategy(problem)
    return get_policy("search", starts=(strategy,), threads=1).find_strategy(problem)


def look_ahead(problem: PlanningProblem, strategy: Strategy) -> tuple[Strategy, ...]:
    """`plans_ahead` with little time; none where frames may be dealt out, which needs no start."""
    return () if problem.objective.is_of_stream else plans_ahead(problem, strategy, AHEAD_S)


class Adaptation:
    """A reviewer for `InferenceSession.adapt`.

    Hysteresis: a change counts only above noise, when two reviews in a row see it, and if the simulator
    says that the best plan for it gains more than a switch costs. So a plan is not left for noise, nor again
    for what was measured under the one before.

    A change is decided at once, from the strategy in use, those in use before, and those made ahead. When the
    next reviews are quiet, there is one longer search, held to the same gain, and then time to look ahead.

    Args:
        problem: what the session's plan was found for, its objective too.
        actor: a trained one of `osds`, or its file: it decides at once, and is fine-tuned when it is quiet;
            in the place of `quick` and `search`. See `distredge.control.learned`.
        quick: finds another strategy at once, given spare ones to start from.
        search: looks longer.
        ahead: makes strategies for changes that may come.
        clock: seconds.

    Attributes:
        switches: how many other strategies were proposed.

    Raises:
        PolicyError: the actor cannot be read, or was trained for another model or number of devices.
    """

    def __init__(
        self,
        problem: PlanningProblem,
        *,
        actor: object = None,
        quick: Quick = quick,
        search: Search = thorough,
        ahead: Ahead = look_ahead,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.estimates = Estimates(problem)
        self.switches = 0
        if actor is not None:
            learned = Learned(problem, actor)
            quick, search = learned.quick, learned.search
        self._quick, self._search, self._look_ahead, self._clock = quick, search, ahead, clock
        self._planned = problem
        self._spare: tuple[Strategy, ...] | None = None
        self._is_hasty = False
        self._used: list[Strategy] = []
        self._seen = 0
        self._reviewed_s = self._switched_s = clock()

    def __call__(self, review: Review) -> Strategy | None:
        """Another strategy, or None."""
        now = self._clock()
        interval_s, self._reviewed_s = now - self._reviewed_s, now
        if now - self._switched_s < SETTLED_S and self.switches:
            return None
        self.estimates.take(review, interval_s)
        if self.estimates.change_since(self._planned) < NOISE:
            self._seen = 0
            return self._use_the_quiet(review)
        self._seen += 1
        return self._decide(review) if self._seen >= CONFIRMED else None

    def _decide(self, review: Review) -> Strategy | None:
        problem = self._planned = self.estimates.problem
        self._seen = 0
        self._is_hasty = True
        spare = (*self._used, *(self._spare or ()))
        return self._better(review, problem, self._quick(problem, review.strategy, spare))

    def _use_the_quiet(self, review: Review) -> Strategy | None:
        """Thinks again about what was decided in haste, and ahead of what may come."""
        problem, old = self.estimates.problem, review.strategy
        if self._is_hasty:
            self._is_hasty, self._spare = False, None
            return self._better(review, problem, self._search(problem, old))
        if self._spare is None:
            self._spare = self._look_ahead(problem, old)
        return None

    def _better(self, review: Review, problem: PlanningProblem, proposed: Strategy) -> Strategy | None:
        """The best of a proposed strategy and those known, if it gains enough."""
        pricer, old = Pricer(problem), review.strategy
        candidates = dict.fromkeys([proposed, *self._used, old])
        # What counts is how the session is used: one frame at a time, or a stream.
        enough = problem.objective.rate or inf
        rates = {each: min(enough, _rate(pricer, each, review.in_flight)) for each in candidates}
        found = max(rates, key=rates.__getitem__)
        if rates[found] < GAIN * rates[old]:
            return None
        _LOG.info("another plan: %.2f images a second instead of %.2f", rates[found], rates[old])
        self._used = [old, *(each for each in self._used if each != old)][:REMEMBERED]
        self.switches += 1
        self._switched_s = self._clock()
        return found


def _rate(pricer: Pricer, strategy: Strategy, in_flight: int) -> float:
    """Images a second."""
    if in_flight > 1:
        if strategy.beside:
            return stream_rate(pricer, strategy, max(1, in_flight // len(strategy.ways))).images_per_second
        return pricer.timeline(strategy, frames=2 * in_flight + 4, in_flight=in_flight).images_per_second
    return 1 / pricer.latency_s(strategy)
