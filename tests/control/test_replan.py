"""A new plan for changed links: in time, no worse than the one in use, and only for what it fits."""

from __future__ import annotations

import time

import pytest

from distredge.control.replan import plans_ahead, replan, with_slower_link
from distredge.errors import StrategyError
from distredge.sim.pricing import Pricer
from policies.search import Search
from tests.policies.problems import chain, problem


@pytest.mark.parametrize("device", [0, 1, 2])
def test_no_worse_than_the_plan_in_use_and_near_a_long_search(device: int) -> None:
    asked = problem(chain(rows=64, layers=8), gflops=(0.3, 0.2, 0.1), mbps=(100.0, 100.0, 100.0))
    in_use = Search(evaluations=5000).find_strategy(asked)
    changed = with_slower_link(asked, device, 10)
    found = Pricer(changed).latency_s(replan(changed, in_use, budget_s=0.5))
    assert found <= Pricer(changed).latency_s(in_use) * (1 + 1e-9)
    assert found <= 1.05 * Pricer(changed).latency_s(Search(evaluations=20_000).find_strategy(changed))


def test_a_tenth_of_a_second_is_not_a_second() -> None:
    asked = problem(chain(rows=64, layers=8), gflops=(0.3, 0.2, 0.1))
    in_use = Search(evaluations=1000).find_strategy(asked)
    begun = time.perf_counter()
    replan(with_slower_link(asked, 0, 10), in_use, budget_s=0.1)
    assert time.perf_counter() - begun < 1


def test_plans_made_ahead_are_started_from() -> None:
    asked = problem(chain(rows=64, layers=8), gflops=(0.3, 0.2, 0.1), mbps=(100.0, 100.0, 100.0))
    in_use = Search(evaluations=5000).find_strategy(asked)
    spare = plans_ahead(asked, in_use, budget_s=0.3)
    assert len(spare) == 3
    for device, plan in enumerate(spare):
        changed = with_slower_link(asked, device, 4)
        found = Pricer(changed).latency_s(replan(changed, in_use, spare=spare))
        assert found <= Pricer(changed).latency_s(plan) * (1 + 1e-9)


def test_a_strategy_of_other_devices_is_refused() -> None:
    asked = problem(chain(), gflops=(0.3, 0.2, 0.1))
    fewer = problem(chain(), gflops=(0.3, 0.2))
    with pytest.raises(StrategyError, match="is split for 3 devices, there are 2"):
        replan(fewer, Search(evaluations=100).find_strategy(asked))
