"""Adaptation against a simulated cluster that changes: soon as good as a fresh plan, and quiet otherwise."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace

import pytest

from distredge.cluster.network import Link
from distredge.cluster.scaled import ScaledTimes
from distredge.control.adapt import Adaptation
from distredge.control.estimates import Estimates
from distredge.plan.objective import Objective
from distredge.plan.policy import PlanningProblem, get_policy
from distredge.plan.strategy import Strategy
from distredge.runtime.tally import Review
from distredge.sim.pricing import Pricer
from distredge.sim.rates import stream_rate
from tests.policies.problems import chain, problem

BASE = problem(chain(96, 6), (0.3, 0.2, 0.15, 0.1), (200.0, 100.0, 100.0, 50.0))
IN_FLIGHT = 3


def best(asked: PlanningProblem) -> Strategy:
    return get_policy("search", evaluations=6000).find_strategy(asked)


def quick(asked: PlanningProblem, strategy: Strategy, spare: tuple[Strategy, ...]) -> Strategy:
    return get_policy("search", evaluations=1500, starts=(strategy, *spare)).find_strategy(asked)


def longer(asked: PlanningProblem, strategy: Strategy) -> Strategy:
    return get_policy("search", evaluations=6000, starts=(strategy,)).find_strategy(asked)


def ahead(asked: PlanningProblem, strategy: Strategy) -> tuple[Strategy, ...]:
    return (quick(slower_link(asked, 0, 50.0), strategy, ()),)


def slower_link(asked: PlanningProblem, device: int, mbps: float) -> PlanningProblem:
    links = list(asked.network.links)
    links[device] = Link(mbps, mbps, 1e-4, 5e-5)
    return replace(asked, network=replace(asked.network, links=tuple(links)))


def slower_device(asked: PlanningProblem, device: int, factor: float) -> PlanningProblem:
    devices = list(asked.devices)
    devices[device] = replace(devices[device], times=ScaledTimes(devices[device].times, factor))
    return replace(asked, devices=tuple(devices))


def observed(truth: PlanningProblem, strategy: Strategy, rng: random.Random, noise: float = 0.05) -> Review:
    """What peers would tell of a second under a plan, while the truth is as it is."""
    pricer = Pricer(truth)
    timeline = pricer.timeline(strategy, frames=8, in_flight=IN_FLIGHT)
    runs: dict[int, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    transit_s: dict[int, float] = {}
    for span in timeline.tasks:
        count, total = runs[span.task]
        runs[span.task] = count + 1, total + (span.end_s - span.start_s) * rng.uniform(1 - noise, 1 + noise)
    for sent in timeline.transfers:
        took_s = (sent.arrived_s - sent.queued_s) * rng.uniform(1, 1 + noise) + rng.expovariate(1 / 3e-4)
        transit_s[sent.transfer] = min(took_s, transit_s.get(sent.transfer, took_s))
    members = frozenset(range(len(truth.devices)))
    return Review(timeline.plan, members, dict(runs), transit_s, IN_FLIGHT)


class Loop:
    """One review a second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rng = random.Random(1)
        self.strategy = best(BASE)
        self.adaptation = Adaptation(BASE, quick=quick, search=longer, ahead=ahead, clock=lambda: self.now)

    def run(self, truth: PlanningProblem, seconds: int, noise: float = 0.05) -> None:
        for _ in range(seconds):
            self.now += 1.0
            review = observed(truth, self.strategy, self.rng, noise)
            self.strategy = self.adaptation(review) or self.strategy

    def share_of_best(self, truth: PlanningProblem) -> float:
        pricer = Pricer(truth)
        fresh = pricer.images_per_second(best(truth), IN_FLIGHT)
        return pricer.images_per_second(self.strategy, IN_FLIGHT) / fresh


CHANGES = {
    "a link falls to a tenth": slower_link(BASE, 0, 20.0),
    "another one": slower_link(BASE, 1, 10.0),
    "a device at half speed": slower_device(BASE, 0, 2.0),
    "both": slower_device(slower_link(BASE, 0, 20.0), 1, 2.0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_met_within_seconds_and_its_end_too(name: str) -> None:
    loop = Loop()
    loop.run(BASE, 2)
    assert loop.adaptation.switches == 0
    loop.run(CHANGES[name], 5)
    assert loop.share_of_best(CHANGES[name]) >= 0.9
    switches = loop.adaptation.switches
    loop.run(CHANGES[name], 20)
    assert loop.share_of_best(CHANGES[name]) >= 0.9
    assert loop.adaptation.switches <= switches + 1
    loop.run(BASE, 8)
    assert loop.share_of_best(BASE) >= 0.9


def test_noise_alone_changes_nothing() -> None:
    loop = Loop()
    loop.run(BASE, 60, noise=0.15)
    assert loop.adaptation.switches == 0


def test_numbers_without_sense_are_ignored() -> None:
    estimates = Estimates(BASE)
    review = observed(BASE, best(BASE), random.Random(0))
    nonsense = {task: (count, float("nan")) for task, (count, _) in review.runs.items()}
    estimates.take(replace(review, runs=nonsense, transit_s=dict.fromkeys(review.transit_s, float("inf"))))
    assert estimates.problem == BASE
    estimates.take(replace(review, transit_s=dict.fromkeys(review.transit_s, -1.0)))
    assert estimates.change_since(BASE) < 1.2


def test_a_hasty_decision_is_thought_over_once_in_the_next_quiet_moment() -> None:
    """At once the plan stays; the longer search finds a better one, and is not asked again."""
    truth, asked = CHANGES["a link falls to a tenth"], list[str]()
    good = best(truth)

    def hasty(problem: PlanningProblem, strategy: Strategy, spare: tuple[Strategy, ...]) -> Strategy:
        asked.append("quick")
        return strategy

    def search(problem: PlanningProblem, strategy: Strategy) -> Strategy:
        asked.append("search")
        return good

    def look(problem: PlanningProblem, strategy: Strategy) -> tuple[Strategy, ...]:
        asked.append("ahead")
        return ()

    loop = Loop()
    loop.adaptation = Adaptation(BASE, quick=hasty, search=search, ahead=look, clock=lambda: loop.now)
    loop.run(BASE, 3, noise=0.01)
    assert asked == ["ahead"]
    loop.run(truth, 4, noise=0.01)
    assert asked == ["ahead", "quick", "search"]
    assert loop.strategy == good
    assert loop.adaptation.switches == 1


def at_rate(asked: PlanningProblem, rate: float) -> PlanningProblem:
    return replace(asked, objective=Objective(rate=rate))


def deal(asked: PlanningProblem) -> Strategy:
    return get_policy("auto", evaluations=300).find_strategy(asked)


def rate_of(truth: PlanningProblem, strategy: Strategy) -> float:
    return stream_rate(Pricer(truth), strategy).images_per_second


def test_frames_are_dealt_out_when_a_slower_device_can_no_longer_sustain_the_rate_with_others() -> None:
    """First all devices split each frame, which answers soonest; then that is too slow."""
    rate = 0.9 * rate_of(BASE, best(BASE))
    asked, truth = at_rate(BASE, rate), at_rate(slower_device(BASE, 0, 2.0), rate)
    now, rng, strategy = 0.0, random.Random(1), deal(asked)
    assert len(strategy.ways) == 1
    assert rate_of(truth, strategy) < 0.9 * rate
    adaptation = Adaptation(
        asked, quick=lambda p, *_: deal(p), search=lambda p, _: deal(p), clock=lambda: now
    )
    for at in range(10):
        now += 1.0
        conditions = asked if at < 3 else truth
        first, *beside = [observed(conditions, way, rng) for way in strategy.ways]
        strategy = adaptation(replace(first, beside=tuple(beside))) or strategy
        assert at >= 3 or adaptation.switches == 0
    assert adaptation.switches >= 1
    assert rate_of(truth, strategy) >= 0.95 * min(rate, rate_of(truth, deal(truth)))
