"""The evaluator against the replay of the peers' own state machines, on random plans of every zoo graph."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from math import inf

import numpy as np
import pytest

from distredge.cluster.network import Link, Network
from distredge.cluster.synthetic import SyntheticDevice
from distredge.errors import StrategyError
from distredge.graph import zoo
from distredge.graph.importer import load_model
from distredge.graph.model import Graph
from distredge.plan.draw import random_scheme, random_split, random_strategy
from distredge.plan.policy import Device, PlanningProblem
from distredge.plan.strategy import PartitionScheme, Strategy
from distredge.sim.pricing import Pricer
from tests.verify.blocks import BLOCKS
from tests.verify.networks import NETWORKS
from tests.verify.random_networks import network, random_network

Problems = Callable[..., PlanningProblem]
MODELS = [model.name for model in zoo.models()]


def with_costs(problem: PlanningProblem, access_point_mbps: float, cost_s: float = 0.0) -> Pricer:
    """Unequal latencies, message costs and boundary costs, so that none of them can hide."""
    links = tuple(
        replace(
            link,
            latency_s=3e-4 * (at + 1),
            fixed_s=1e-4,
            send_s_per_byte=cost_s / 2,
            receive_s_per_byte=cost_s,
        )
        for at, link in enumerate(problem.network.links)
    )
    network = Network(links, Link(1000, 400, 1e-3, 2e-4), access_point_mbps)
    pricer = Pricer(replace(problem, network=network))
    coding = {"fp16": (4e-9, 2e-9), "int8": (1e-9, 3e-9)}
    pricer.times = tuple(
        replace(t, fixed_s=2e-4, s_per_byte=1e-9, coding=coding if at else {})
        for at, t in enumerate(pricer.times)
    )
    return pricer


@pytest.mark.parametrize("name", MODELS)
def test_equals_replay(name: str, problem_of: Problems) -> None:
    problem = problem_of(name)
    rng = random.Random(name)
    # 50 ns: a device that computes at a fifth of its speed while 125 Mbit/s come.
    rounded = [replace(problem, wire=wire) for wire in ("fp16", "int8")]
    costly = with_costs(rounded[0], inf, 5e-8), with_costs(rounded[1], 300.0, 2e-8)
    for pricer in (Pricer(problem), with_costs(problem, inf), with_costs(problem, 300.0), *costly):
        for _ in range(4):
            lanes = rng.choice((1, 3))
            strategy = random_strategy(problem.graph, 4, rng.randint(0, 8), rng, most_lanes=lanes)
            if rng.random() < 0.3:
                strategy = replace(strategy, tail_device=None)
            replayed = pricer.timeline(strategy).latency_s
            assert pricer.latency_s(strategy) == pytest.approx(replayed, rel=1e-9)


def made_up(graph: Graph, devices: int, rng: random.Random) -> PlanningProblem:
    """Random devices on random links."""

    def link() -> Link:
        up, down = rng.uniform(1, 200), rng.uniform(1, 200)
        costs = (0.0, 0.0), (rng.random() / 2e7, rng.random() / 1e7)
        return Link(up, down, rng.random() / 1e3, rng.random() / 1e4, *rng.choice(costs))

    kinds = [SyntheticDevice(f"synthetic-{at}", 1e8 * (at + 1), 1e-5, at + 1) for at in range(devices)]
    network = Network(tuple(link() for _ in kinds), link(), rng.choice((inf, 150.0)))
    return PlanningProblem(graph, tuple(Device(kind.name, kind.on(graph)) for kind in kinds), network)


def check_against_replay(graph: Graph, rng: random.Random, strategies: int = 6) -> None:
    devices = rng.randint(1, 6)
    problem = made_up(graph, devices, rng)
    pricer = Pricer(problem)
    pricer.times = tuple(replace(t, fixed_s=2e-4, s_per_byte=1e-7) for t in pricer.times)
    assert pricer.packed is not None
    for _ in range(strategies):
        lanes = rng.choice((1, 3))
        strategy = random_strategy(graph, devices, rng.randint(0, 6), rng, most_lanes=lanes)
        replayed = pricer.timeline(strategy).latency_s
        assert pricer.latency_s(strategy) == pytest.approx(replayed, rel=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_replay_on_families_of_networks(name: str) -> None:
    check_against_replay(load_model(NETWORKS[name]().build()).graph, random.Random(name), 12)


@pytest.mark.parametrize("name", BLOCKS)
def test_equals_replay_on_every_kind_of_rule(name: str) -> None:
    for seed in range(2):
        graph = load_model(network([name], opset=BLOCKS[name].opsets[1], seed=seed).build()).graph
        check_against_replay(graph, random.Random(f"{name}{seed}"))


@pytest.mark.parametrize("seed", range(40))
def test_equals_replay_on_random_networks(seed: int) -> None:
    check_against_replay(load_model(random_network(seed)[0].build()).graph, random.Random(seed))


@pytest.mark.parametrize("name", MODELS)
def test_every_zoo_graph_fits_the_evaluator(name: str, problem_of: Problems) -> None:
    assert Pricer(problem_of(name)).packed is not None


@pytest.mark.parametrize("cluster", ["DA-NA", "DD-ND", "LB"])
def test_batch_equals_one_by_one(cluster: str, problem_of: Problems) -> None:
    problem = problem_of("vgg16-body", cluster)
    pricer, rng = Pricer(problem), random.Random(1)
    scheme = pricer.scheme(random_scheme(problem.graph, 3, rng))
    devices = len(problem.devices)
    bounds = np.array([[random_split(rows, devices, rng).bounds for rows in scheme.rows] for _ in range(20)])
    one_by_one = [pricer.timeline(scheme.strategy(each)).latency_s for each in bounds]
    assert scheme.latencies_s(bounds) == pytest.approx(one_by_one, rel=1e-9)


@pytest.mark.parametrize(
    "name", ["yolov2", "inception_v3", "ssd_vgg16", "diffusion_unet", "barrier_in_the_middle"]
)
def test_one_scratch_for_strategies_alike(name: str, problem_of: Problems) -> None:
    """What an evaluation keeps of the one before never shows: cuts and bounds change a little at a time."""
    if name in MODELS:
        problem = problem_of(name)
    else:
        graph = load_model(NETWORKS[name]().build()).graph
        problem = made_up(graph, 4, random.Random(name))
    graph, rng = problem.graph, random.Random(name)
    pricer = with_costs(problem, inf)
    strategy = random_strategy(graph, 4, 3, rng)
    for _ in range(30):
        cuts = set(strategy.scheme.cuts)
        if rng.random() < 0.5:
            cuts ^= {rng.choice(graph.cut_points)}
        scheme = PartitionScheme(tuple(cut for cut in graph.cut_points if cut in cuts))
        heights = pricer.scheme(scheme).rows
        kept = [*strategy.splits, *strategy.splits][: len(heights)]
        kept += [strategy.splits[-1]] * (len(heights) - len(kept))
        splits = [split.scaled(rows) for split, rows in zip(kept, heights, strict=True)]
        at = rng.randrange(len(splits))
        splits[at] = random_split(heights[at], 4, rng)
        strategy = replace(strategy, scheme=scheme, splits=tuple(splits))
        alone = with_costs(problem, inf)
        assert pricer.latency_s(strategy) == alone.latency_s(strategy)


def test_volume_times_are_ends_of_tasks(problem_of: Problems) -> None:
    problem = problem_of("vgg16-body")
    pricer, rng = Pricer(problem), random.Random(2)
    scheme = pricer.scheme(random_scheme(problem.graph, 4, rng))
    bounds = np.array([[random_split(rows, 4, rng).bounds for rows in scheme.rows]])
    _, ready = scheme.volume_times(bounds)
    timeline = pricer.timeline(scheme.strategy(bounds[0]))
    for span in timeline.tasks:
        volume = timeline.plan.tasks[span.task].volume
        assert ready[0, volume, span.device] == pytest.approx(span.end_s, rel=1e-9)
    assert (np.diff(ready[0], axis=0) >= 0).all()


def test_slow_path_equals_fast_path(problem_of: Problems) -> None:
    problem = problem_of("squeezenet")
    fast, slow = Pricer(problem), Pricer(problem)
    slow.__dict__["packed"] = None
    strategy = random_strategy(problem.graph, 4, 3, random.Random(3))
    assert slow.latency_s(strategy) == pytest.approx(fast.latency_s(strategy), rel=1e-9)


def test_bounds_that_do_not_fit_are_refused(problem_of: Problems) -> None:
    scheme = Pricer(problem_of("tiny")).scheme(PartitionScheme())
    with pytest.raises(StrategyError, match="do not rise"):
        scheme.latencies_s(np.array([[[0, 9, 3, 20, 32]]]))
    with pytest.raises(StrategyError, match="shape"):
        scheme.latencies_s(np.array([[[0, 32]]]))
    with pytest.raises(StrategyError, match="tail device"):
        scheme.latencies_s(np.array([[[0, 1, 3, 20, 32]]]), 4)


def test_throughput_of_a_pipeline_exceeds_that_of_single_frames(problem_of: Problems) -> None:
    problem = problem_of("vgg16-body")
    pricer = Pricer(problem)
    strategy = random_strategy(problem.graph, 4, 3, random.Random(4))
    alone, many = pricer.images_per_second(strategy, 1), pricer.images_per_second(strategy, 6)
    assert alone == pytest.approx(1 / pricer.latency_s(strategy))
    assert many > alone


def test_memory_counts_weights_where_rows_are(problem_of: Problems) -> None:
    problem = problem_of("vgg16-body")
    pricer = Pricer(problem)
    split = random_split(7, 4, random.Random(5)).from_shares(7, [1.0, 1.0, 0.0, 0.0])
    needed = pricer.memory_bytes(Strategy(PartitionScheme(), (split,)))
    assert (needed[:2] > 2 * 50e6).all()
    assert (needed[2:] == 0).all()
