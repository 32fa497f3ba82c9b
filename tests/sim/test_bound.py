"""No simulated plan is faster than the bound."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from math import inf

import pytest

from distredge.cluster.network import Link, Network
from distredge.cluster.synthetic import SyntheticDevice
from distredge.plan.draw import random_scheme, random_strategy
from distredge.plan.policy import Device, PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.sim.bound import lower_bound
from distredge.sim.pricing import Pricer

Problems = Callable[..., PlanningProblem]


@pytest.mark.parametrize(("cluster", "overlap"), [("DA-NA", True), ("DB-NC", False), ("DD-ND", False)])
@pytest.mark.parametrize("name", ["tiny", "vgg16-body", "alexnet", "squeezenet", "pp-ocrv6-det", "yolov2"])
def test_never_above_a_plan(name: str, cluster: str, overlap: bool, problem_of: Problems) -> None:
    problem = replace(problem_of(name, cluster), overlap=overlap)
    pricer, bound, rng = Pricer(problem), lower_bound(problem), random.Random(name + cluster)
    lanes = 3 if overlap else 1
    assert bound > 0
    for _ in range(20):
        strategy = random_strategy(problem.graph, 4, rng.randint(0, 6), rng, most_lanes=lanes)
        assert pricer.latency_s(strategy) >= bound
    for device in range(4):  # whole on one device, and nearly so: where plans come closest
        for cuts in (0, 3):
            scheme = random_scheme(problem.graph, cuts, rng)
            rows = [volume.rows for volume in find_volumes(problem.graph, scheme)]
            whole = [SplitDecision((0,) * (device + 1) + (r,) * (4 - device)) for r in rows]
            assert pricer.latency_s(Strategy(scheme, tuple(whole), device)) >= bound


def drawn(problem: PlanningProblem, rng: random.Random) -> PlanningProblem:
    """Random devices and links."""

    def link() -> Link:
        rates = (10 ** rng.uniform(0.5, 4), 10 ** rng.uniform(0.5, 4))
        return Link(*rates, rng.choice((0.0, rng.expovariate(100))), rng.choice((0.0, 1e-4)))

    def device(at: int) -> Device:
        kind = SyntheticDevice(f"synthetic-{at}", 10 ** rng.uniform(9, 12), rng.choice((0.0, 1e-4)), at + 1)
        return Device(str(at), kind.on(problem.graph))

    count = rng.randint(1, 5)
    network = Network(tuple(link() for _ in range(count)), link(), rng.choice((inf, 100.0)))
    devices = tuple(device(at) for at in range(count))
    return replace(problem, devices=devices, network=network, overlap=rng.random() < 0.5)


@pytest.mark.parametrize("name", ["tiny", "vgg16-body", "squeezenet"])
@pytest.mark.parametrize("seed", range(8))
def test_never_above_a_plan_of_random_clusters(name: str, seed: int, problem_of: Problems) -> None:
    rng = random.Random(seed)
    problem = drawn(problem_of(name), rng)
    pricer, bound = Pricer(problem), lower_bound(problem)
    for _ in range(25):
        lanes = 3 if problem.overlap else 1
        strategy = random_strategy(
            problem.graph, len(problem.devices), rng.randint(0, 4), rng, most_lanes=lanes
        )
        assert pricer.latency_s(strategy) >= bound


def test_is_reached_where_there_is_nothing_to_decide(problem_of: Problems) -> None:
    """One layer on one device without a fixed cost: input, compute and output follow each other."""
    problem = problem_of("tiny")
    times = SyntheticDevice("synthetic-one", 1e9, 0.0, 1).on(problem.graph)
    network = Network((Link(10, 10, 2e-3),), Link(100, 100, 1e-3))
    problem = replace(problem, devices=(Device("one", times),), network=network, overlap=False)
    strategy = Strategy(PartitionScheme(), (SplitDecision((0, 32)),))
    assert lower_bound(problem) == pytest.approx(Pricer(problem).latency_s(strategy), rel=1e-3)
