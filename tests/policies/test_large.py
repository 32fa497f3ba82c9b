"""Many devices: `auto` plans for the strongest of them, says which, and takes no longer for it."""

from __future__ import annotations

import random
import time
from dataclasses import replace

from distredge.plan.policy import PlanningProblem, decide, get_policy
from distredge.sim.pricing import Pricer
from policies.large import MOST, among, strongest
from tests.policies.problems import chain, problem


def many(count: int, seed: int = 0) -> PlanningProblem:
    rng = random.Random(seed)
    speeds = tuple(rng.choice((0.3, 0.15, 0.05, 0.02)) for _ in range(count))
    rates = tuple(rng.choice((50.0, 100.0, 200.0, 300.0)) for _ in range(count))
    return problem(chain(96, 6), speeds, rates)


def test_the_strongest_have_fast_processors_and_links() -> None:
    asked = problem(chain(96, 6), (0.1, 0.4, 0.4, 0.05), (100.0, 1.0, 100.0, 100.0))
    assert strongest(asked, 2) == (0, 2)
    assert [device.name for device in among(asked, (0, 2)).devices] == [
        asked.devices[0].name,
        asked.devices[2].name,
    ]


def test_a_plan_for_some_is_one_for_all_and_says_so() -> None:
    asked = many(60)
    decision = decide(asked, get_policy("auto", evaluations=2000))
    strategy, chosen = decision.strategy, strongest(asked)
    assert strategy.devices == 60
    used = {d for d in range(60) for split in strategy.merged.splits if split.part(d)}
    assert used <= set(chosen)
    assert f"the {MOST} strongest of 60 devices" in decision.why
    assert asked.devices[min(used)].name in decision.why
    few = decide(among(asked, chosen), get_policy("auto", evaluations=2000))
    assert Pricer(asked).latency_s(strategy) == Pricer(among(asked, chosen)).latency_s(few.strategy)


def test_few_devices_are_all_asked() -> None:
    assert decide(many(5), get_policy("auto", evaluations=500)).why == ""


def test_a_thousand_devices_take_seconds() -> None:
    asked = replace(many(1024), budget_s=1.0)
    begun = time.perf_counter()
    decision = decide(asked, "auto")
    assert time.perf_counter() - begun < 60.0
    assert Pricer(asked).latency_s(decision.strategy) <= Pricer(asked).latency_s(
        get_policy("offload").find_strategy(asked)
    )
