"""Who has which features of fully connected layers."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from distredge.plan.policy import PlanningProblem, Policy
from distredge.plan.strategy import Strategy
from distredge.plan.volumes import find_volumes
from policies.auto import BASELINES, Auto
from policies.memory import fitted
from policies.osds_env import _ends
from policies.parts import memory_limits, pricer_for, shared_out, single_device
from policies.proportional import Proportional
from tests.policies.problems import problem, with_head

FAST, SLOW = (20_000.0,) * 3, (0.5,) * 3


def head_sizes(asked: PlanningProblem, strategy: Strategy) -> list[list[int]]:
    """Features of each device, by volume of the head."""
    graph = asked.graph
    volumes = find_volumes(graph, strategy.scheme)
    splits = zip(volumes, strategy.merged.splits, strict=True)
    inside = [split for volume, split in splits if graph.head.intersection(volume.nodes)]
    return [[split.part(device).size for device in range(split.parts)] for split in inside]


def slow_heads(mbps: tuple[float, ...]) -> PlanningProblem:
    """Weights take most of the time."""
    return problem(with_head(), gflops=(0.2, 0.2, 0.1), mbps=mbps, seed=1)


@pytest.mark.parametrize("policy", BASELINES, ids=lambda policy: policy.name)
def test_published_ways_leave_a_head_whole(policy: Policy) -> None:
    asked = slow_heads(FAST)
    for sizes in head_sizes(asked, policy.find_strategy(asked)):
        assert sum(size > 0 for size in sizes) == 1 or policy.name == "proportional"


def test_shared_out_where_that_is_sooner() -> None:
    asked = slow_heads(FAST)
    decision = Auto(evaluations=3000).decide(asked)
    whole = min(
        latency for name, latency in decision.latencies_s.items() if name not in ("search", "proportional")
    )
    assert decision.latencies_s["search"] < 0.7 * whole
    assert decision.latencies_s["proportional"] < 0.9 * whole
    assert all(sum(size > 0 for size in sizes) > 1 for sizes in head_sizes(asked, decision.strategy))


def test_whole_where_links_are_slow() -> None:
    asked = slow_heads(SLOW)
    strategy = Auto(evaluations=3000).find_strategy(asked)
    assert all(sum(size > 0 for size in sizes) == 1 for sizes in head_sizes(asked, strategy))
    assert all(
        sum(size > 0 for size in sizes) == 1
        for sizes in head_sizes(asked, Proportional().find_strategy(asked))
    )


def test_a_head_that_fits_nobody_is_shared_out() -> None:
    """Each device has room for two thirds of what the whole takes."""
    graph = with_head()
    asked = problem(graph, gflops=(1.0, 1.0, 1.0))
    need = float(pricer_for(asked).memory_bytes(single_device(asked, 0)).max())
    tight = tuple(replace(device, memory_bytes=need * 2 / 3) for device in asked.devices)
    asked = replace(asked, devices=tight)
    strategy = fitted(asked, shared_out(graph, (), [1.0, 1.0, 1.0]))
    used = pricer_for(asked).memory_bytes(strategy)
    assert (used <= memory_limits(asked)).all()
    assert max(memory_limits(asked)) < inf
    assert any(sum(size > 0 for size in sizes) > 1 for sizes in head_sizes(asked, strategy))


def test_the_largest_part_takes_a_whole() -> None:
    fractions = np.array([[0.2, 0.3], [0.5, 0.9], [0.1, 0.9]])
    assert _ends(fractions, False) is fractions
    assert _ends(fractions, True).tolist() == [[0, 0], [1, 1], [0, 1]]
