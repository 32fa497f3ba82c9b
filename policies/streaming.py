"""For streams: frames dealt out whole, to single devices, to groups that split them, or to both."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from distredge.errors import PolicyError
from distredge.plan.objective import Objective
from distredge.plan.policy import Decision, PlanningProblem
from distredge.plan.strategy import Strategy
from distredge.sim.rates import Load, StreamRate, load_of, stream_rate
from policies.groupings import groupings, sizes
from policies.parts import fits, pricer_for, shared_out, single_device
from policies.pipeline import pipeline
from policies.replicate import Replicate

ALONE, REPLICATE = "best device alone", "replicate"
WORTH = 1.005
"""A candidate must be so much better than one named before it: the simulator is no finer than that."""
GROUPS_SHARE = 0.75
"""Of the budget, after which no further grouping is tried; the rest is for pipelines."""
CUTS = 3
"""Of the best answers for one frame, whose cuts groups try."""


@dataclass(frozen=True)
class Candidate:
    """One answer, and what is known of it without a replay.

    Attributes:
        most: it gives no more images per second.
        latency_s: of a frame alone, on the slowest way that it may take.
    """

    name: str
    strategy: Strategy
    most: float
    latency_s: float


class Streaming:
    """One decision for a stream; see `Auto`.

    Args:
        problem: what is asked, its objective of a stream.
        asked: answers of policies for one frame alone, by their names.
        begun: when the budget began, by `time.perf_counter`.
    """

    def __init__(self, problem: PlanningProblem, asked: Mapping[str, Strategy], begun: float) -> None:
        self._problem, self._asked, self._begun = problem, asked, begun
        self._pricer = pricer_for(problem)
        self._loads: dict[Strategy, Load] = {}
        self._found: list[Candidate] = []
        self._rates: dict[str, StreamRate] = {}

    def decide(self) -> Decision:
        """The best of everything tried for the problem's objective, and why it is.

        Raises:
            PolicyError: the model does not fit into memory.
        """
        singles = [single_device(self._problem, device) for device in range(len(self._problem.devices))]
        order = sorted(range(len(singles)), key=lambda device: self._load(singles[device]).most_s)
        able = [device for device in order if fits(self._problem, singles[device])]
        if able:
            self._offer(ALONE, singles[able[0]])
            self._offer(REPLICATE, Replicate().find_strategy(self._problem))
        for name, strategy in self._asked.items():
            self._offer(name, strategy)
        self._offer_groups(order, frozenset(able))
        self._offer_pipelines(order)
        if not self._found:
            raise PolicyError(
                "the model does not fit into the devices' memory; add devices or raise memory_mb"
            )
        winner = self._choose()
        for each in self._found[:2]:
            self._rate(each)  # whatever wins is compared with them
        strategy, left_out = self._trimmed(winner)
        return Decision(
            strategy,
            winner.name,
            {each.name: each.latency_s for each in self._found},
            {name: rate.images_per_second for name, rate in self._rates.items()},
            explain(winner, self._rates, self._problem.objective, left_out),
        )

    def _choose(self) -> Candidate:
        """The best for the objective; of about equals the first. Only what may be it is replayed."""
        wanted = self._problem.objective.rate
        if not self._problem.objective.wants_rate:
            for each in sorted(self._found, key=lambda each: each.latency_s):
                if each.most >= wanted and self._rate(each) >= wanted:
                    return each
        best = self._found[0]
        for each in sorted(self._found, key=lambda each: -each.most):
            if each.most > WORTH * self._rate(best) and self._rate(each) > WORTH * self._rate(best):
                best = each
        return best

    def _trimmed(self, candidate: Candidate) -> tuple[Strategy, int]:
        """Without the slowest ways, as long as what they give together is next to nothing; and how many these
        are. In a stream whose answers come in order, a frame on a slow way holds up all behind it."""
        each = self._rates[candidate.name].each
        spare = (1 - 1 / WORTH) * sum(each)
        kept = set(range(len(each)))
        for at in sorted(kept, key=lambda at: each[at]):
            spare -= each[at]
            if spare < 0:
                break
            kept.remove(at)
        ways = [way for at, way in enumerate(candidate.strategy.ways) if at in kept]
        return Strategy.dealt(ways), len(each) - len(ways)

    def _rate(self, candidate: Candidate) -> float:
        if candidate.name not in self._rates:
            self._rates[candidate.name] = stream_rate(self._pricer, candidate.strategy)
        return self._rates[candidate.name].images_per_second

    def _offer_groups(self, order: Sequence[int], able: frozenset[int]) -> None:
        best = sorted(self._asked.values(), key=self._pricer.latency_s)[:CUTS]
        cuts = list(dict.fromkeys([*(strategy.scheme.cuts for strategy in best), ()]))
        for name, grouping in groupings(order, able):
            if self._used() > GROUPS_SHARE:
                return
            self._offer(name, Strategy.dealt([self._group(group, cuts) for group in grouping]))

    def _offer_pipelines(self, order: Sequence[int]) -> None:
        if not self._problem.objective.wants_rate or not self._problem.graph.cut_points:
            return
        for count in sizes(len(order))[1:]:
            if self._used() > 1:
                return
            self._offer(f"a pipeline of {count}", pipeline(self._pricer, order[:count]))

    def _used(self) -> float:
        return (time.perf_counter() - self._begun) / self._problem.budget_s

    def _group(self, group: Sequence[int], cuts: Sequence[tuple[str, ...]]) -> Strategy:
        """The way of one group, rows shared out by speed; the cuts that answer soonest."""
        if len(group) == 1:
            return single_device(self._problem, group[0])
        graph, speeds = self._problem.graph, self._pricer.speeds()
        shares = np.zeros(len(speeds))
        shares[list(group)] = speeds[list(group)]
        tail = int(shares.argmax()) if graph.tail else None
        ways = [replace(shared_out(graph, each, shares), tail_device=tail) for each in cuts]
        return min(ways, key=self._pricer.latency_s)

    def _load(self, way: Strategy) -> Load:
        if way not in self._loads:
            self._loads[way] = load_of(self._pricer, way)
        return self._loads[way]

    def _offer(self, name: str, strategy: Strategy) -> None:
        if not fits(self._problem, strategy):
            return
        loads = [self._load(way) for way in strategy.ways]
        most = sum(1 / load.most_s if load.most_s else inf for load in loads)
        slowest = max(zip(loads, strategy.ways, strict=True), key=lambda pair: sum(pair[0].seconds.values()))
        self._found.append(Candidate(name, strategy, most, self._pricer.latency_s(slowest[1])))


def explain(
    winner: Candidate, rates: Mapping[str, StreamRate], objective: Objective, left_out: int = 0
) -> str:
    """One line: what the winner does, and what the others would."""
    rate = rates[winner.name]
    text = f"{winner.name} gives {rate.images_per_second:.1f} images a second"
    if not objective.wants_rate:
        if rate.images_per_second >= objective.rate:
            text += f" and the lowest latency of all that sustain {objective.rate:g}"
        else:
            text = f"no plan sustains {objective.rate:g} images a second; {text}, the most of all"
    if left_out:
        text += f", without {left_out} of its devices or groups that would add next to nothing"
    text += f"; {rate.binds} is busy {rate.share:.0%} of the time"
    others = {name: each.images_per_second for name, each in rates.items() if name != winner.name}
    kept = [name for name in (ALONE, REPLICATE) if name in others]
    split = [name for name in others if name not in kept]
    kept += sorted(split, key=lambda name: -others[name])[:1]
    compared = ", ".join(f"{name} {others[name]:.1f}" for name in kept)
    return f"{text} (for comparison: {compared})" if compared else text
