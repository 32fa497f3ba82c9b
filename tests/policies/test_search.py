"""`search` and `auto`: against enumeration, against the baselines, under memory limits."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise, product

import numpy as np
import pytest

from distredge.graph.model import Graph
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from policies.annealer import Annealer
from policies.auto import BASELINES, Auto
from policies.cuts import distinct_cuts, narrow_cuts
from policies.parts import memory_limits, pricer_for
from policies.search import Search
from policies.starts import simple_strategies
from tests.policies.problems import branches, chain, problem


def every_latency(asked: PlanningProblem, cuts: tuple[str, ...] = ()) -> float:
    """The lowest latency of all schemes over distinct (or these) cuts, all splits and all tail devices."""
    pricer, graph, devices = pricer_for(asked), asked.graph, len(asked.devices)
    cuts = cuts or distinct_cuts(graph)
    best = np.inf
    for count in range(len(cuts) + 1):
        for chosen in combinations(cuts, count):
            scheme = pricer.scheme(PartitionScheme(chosen))
            choices = [
                [(0, *inner, rows) for inner in product(range(rows + 1), repeat=devices - 1) if _rises(inner)]
                for rows in scheme.rows
            ]
            bounds = np.array(list(product(*choices)))
            tails = range(devices) if graph.tail else (-1,)
            best = min(best, *(float(scheme.latencies_s(bounds, tail).min()) for tail in tails))
    return best


def _rises(inner: tuple[int, ...]) -> bool:
    return all(a <= b for a, b in pairwise(inner))


@pytest.mark.parametrize("mbps", [(100.0, 100.0), (20.0, 400.0), (5.0, 5.0)])
@pytest.mark.parametrize("graph", [chain(rows=7, layers=3), chain(rows=12, layers=2), branches(rows=4)])
def test_equals_enumeration(graph: Graph, mbps: tuple[float, ...]) -> None:
    asked = problem(graph, gflops=(0.02, 0.01), mbps=mbps)
    found = pricer_for(asked).latency_s(Search(evaluations=20_000).find_strategy(asked))
    assert found == pytest.approx(every_latency(asked), rel=1e-9)


def test_distinct_cuts_lose_nothing() -> None:
    asked = problem(chain(rows=8, layers=3), gflops=(0.02, 0.01), mbps=(30.0, 60.0))
    assert every_latency(asked) == pytest.approx(every_latency(asked, asked.graph.cut_points), rel=1e-9)


def test_equals_enumeration_on_three_devices() -> None:
    asked = problem(chain(rows=6, layers=2), gflops=(0.02, 0.01, 0.005), mbps=(50.0, 100.0, 20.0))
    found = pricer_for(asked).latency_s(Search(evaluations=20_000).find_strategy(asked))
    assert found == pytest.approx(every_latency(asked), rel=1e-9)


def test_never_behind_where_it_starts() -> None:
    asked = problem(chain(rows=64, layers=8), gflops=(0.3, 0.2, 0.1), budget_s=0.05)
    start = min(simple_strategies(asked), key=pricer_for(asked).latency_s)
    for search in (Search(starts=(start,)), Search(starts=(start,), simple=False, evaluations=1)):
        found = pricer_for(asked).latency_s(search.find_strategy(asked))
        assert found <= pricer_for(asked).latency_s(start) * (1 + 1e-9)


def test_seeds_differ_but_repeat() -> None:
    asked = [problem(chain(rows=64, layers=8), gflops=(0.3, 0.2, 0.1), seed=seed) for seed in (1, 1, 2)]
    first, again, other = (Search(evaluations=200).find_strategy(each) for each in asked)
    assert first == again
    assert first != other


def test_no_idle_cuts() -> None:
    asked = problem(chain(rows=16, layers=6), gflops=(1.0, 0.001))
    assert Search(evaluations=2000).find_strategy(asked).scheme == PartitionScheme()


def test_keeps_to_its_time() -> None:
    import time

    asked = problem(chain(rows=64, layers=8), gflops=(0.3, 0.2, 0.1), budget_s=0.2)
    Search(evaluations=100).find_strategy(asked)  # compiles
    begun = time.perf_counter()
    Search().find_strategy(asked)
    assert time.perf_counter() - begun < 2


@pytest.mark.parametrize("lanes", [(), (0, 1, 1, 1, 2, 2)])
def test_prices_and_fits_as_the_simulator(lanes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    graph = branches(rows=24)
    memory = (60e3, 120e3, 1e9)
    asked = problem(graph, memory_bytes=memory)
    pricer, cuts = pricer_for(asked), narrow_cuts(graph)
    annealer = Annealer(asked, cuts, lanes)
    seen = set()
    for _ in range(100):
        chosen = tuple(cut for cut in cuts if rng.random() < 0.4)
        rows = pricer.scheme(PartitionScheme(chosen)).rows
        inner = [sorted(rng.integers(0, r + 1, (len(lanes) or 3) - 1).tolist()) for r in rows]
        splits = tuple(SplitDecision((0, *each, r)) for each, r in zip(inner, rows, strict=True))
        strategy = Strategy(PartitionScheme(chosen), splits, int(rng.integers(3)), lanes)
        fits = bool((pricer.memory_bytes(strategy) <= memory_limits(asked)).all())
        seen.add(fits)
        expected = pricer.latency_s(strategy) if fits else np.inf
        assert annealer.price(strategy) == pytest.approx(expected, rel=1e-12)
    assert seen == {True, False}


@pytest.mark.parametrize("graph", [chain(rows=48, layers=7), branches(rows=32)])
@pytest.mark.parametrize("mbps", [(100.0, 100.0, 100.0), (10.0, 300.0, 50.0)])
@pytest.mark.parametrize("overlap", [False, True])
def test_auto_is_never_behind(graph: Graph, mbps: tuple[float, ...], overlap: bool) -> None:
    asked = problem(graph, gflops=(0.3, 0.2, 0.1), mbps=mbps, overlap=overlap)
    pricer = pricer_for(asked)
    decision = Auto(evaluations=2000).decide(asked)
    latency = pricer.latency_s(decision.strategy)
    assert latency == min(decision.latencies_s.values()) == decision.latencies_s[decision.winner]
    assert set(decision.latencies_s) == {*(policy.name for policy in BASELINES), "search"}
    for policy in BASELINES:
        assert latency <= pricer.latency_s(policy.find_strategy(asked))


def test_lanes_where_links_are_slow() -> None:
    """Rows travel while others are computed; with one device, the image's do."""
    for gflops in ((0.3, 0.2, 0.1), (0.3,)):
        plain = problem(chain(rows=64, layers=6), gflops=gflops, mbps=(20.0,) * len(gflops))
        whole = Search(evaluations=6000).find_strategy(plain)
        asked = replace(plain, overlap=True)
        laned = Search(evaluations=6000).find_strategy(asked)
        pricer = pricer_for(asked)
        assert not whole.lanes
        assert laned.has_lanes
        assert pricer.latency_s(laned) < 0.9 * pricer.latency_s(whole)
        assert pricer.latency_s(laned) == pytest.approx(pricer.timeline(laned).latency_s, rel=1e-9)


def test_no_lanes_where_tasks_cost_more_than_they_hide() -> None:
    asked = problem(chain(rows=32, layers=4), gflops=(0.3, 0.2), mbps=(1e6, 1e6), overlap=True)
    dear = [replace(device.times.type, t0_s=1e-2) for device in asked.devices]  # type: ignore[attr-defined]
    devices = (replace(d, times=t.on(asked.graph)) for d, t in zip(asked.devices, dear, strict=True))
    asked = replace(asked, devices=tuple(devices))
    assert not Search(evaluations=6000).find_strategy(asked).lanes


def test_lanes_in_use_are_a_start() -> None:
    asked = problem(chain(rows=64, layers=6), mbps=(20.0, 20.0, 20.0), overlap=True)
    in_use = Search(evaluations=20_000).find_strategy(asked)
    again = Search(starts=(in_use,), simple=False, evaluations=2).find_strategy(asked)
    assert pricer_for(asked).latency_s(again) <= pricer_for(asked).latency_s(in_use) * (1 + 1e-9)


def test_auto_with_hardly_any_time_still_answers() -> None:
    asked = problem(chain(), budget_s=1e-6)
    decision = Auto().decide(asked)
    assert "offload" in decision.latencies_s


class Fixed:
    """Answers what it is told to."""

    name = "fixed"

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy

    def find_strategy(self, asked: PlanningProblem) -> Strategy:
        return self.strategy


def test_auto_asks_others_too() -> None:
    asked = problem(chain(rows=48, layers=7), gflops=(0.3, 0.2, 0.1))
    good = Search(evaluations=20_000).find_strategy(asked)
    decision = Auto(evaluations=300, others=(Fixed(good),)).decide(asked)
    assert decision.latencies_s["fixed"] == pricer_for(asked).latency_s(good)
    assert min(decision.latencies_s.values()) <= decision.latencies_s["fixed"]
