"""Measuring running peers, and racing strategies on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distredge.cluster.network import Link
from distredge.control.measured import measured_timeline
from distredge.control.profiling import estimate_network, profile_session
from distredge.control.race import race
from distredge.graph import zoo
from distredge.plan.draw import random_strategy
from distredge.plan.execution import REQUESTER
from distredge.runtime.reference import WholeModel, difference
from distredge.runtime.session import InferenceSession
from distredge.sim.pricing import Pricer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "squeezenet.onnx"
    zoo.write(zoo.get("squeezenet").build(None, 0), str(path))
    return path


def test_peers_are_measured_raced_and_drawn_from_their_own_traces(model: Path) -> None:
    import random

    with InferenceSession(model, local_peers=2, policy="equal") as session:
        (info,) = session.get_inputs()
        feed = {info.name: np.random.default_rng(0).standard_normal(info.shape).astype(np.float32)}
        before = session.plan
        done: list[tuple[int, int]] = []
        measured = profile_session(session, feed, budget_s=2.0, progress=lambda at, of: done.append((at, of)))
        assert session.plan.strategy == before.strategy
        assert done[-1][0] == done[-1][1] >= measured.strategies >= 4
        graph = session.model.graph
        problem = measured.problem(graph)
        strategies = {str(cuts): random_strategy(graph, 2, cuts, random.Random(cuts)) for cuts in (0, 2)}
        pricer = Pricer(problem)
        for profile in measured.profiles:
            assert all(
                max(s.seconds) >= 1 and min(map(min, s.seconds.values())) >= 0
                for s in profile.segments.values()
            )
        assert all(0 < pricer.latency_s(strategy) < 5 for strategy in strategies.values())
        raced = race(session, feed, strategies, rounds=2, frames=1)
        expected = WholeModel(model).run(feed)
        for one in raced.values():
            assert len(one.seconds) == 2
            assert difference(one.outputs, expected).relative < 3e-5
        timeline = measured_timeline(session.plan, session.trace())
    ids = {task.task for task in timeline.tasks}
    assert ids == {task.id for task in timeline.plan.tasks}, "every task of the last frame was measured"
    assert {t.transfer for t in timeline.transfers} == {t.id for t in timeline.plan.transfers}
    assert all(task.end_s >= task.start_s for task in timeline.tasks)


def test_links_are_estimated_from_large_transfers_and_fixed_costs_from_small_ones() -> None:
    slow = [(REQUESTER, 0, 1_000_000, 0.081), (REQUESTER, 0, 1_000_000, 0.2)]
    small = [(0, 1, 100, 0.001), (1, 0, 100, 0.001), (0, REQUESTER, 10, 0.001)]
    network = estimate_network(slow + small, 2)
    assert network.links[0].downlink_mbps == pytest.approx(100, rel=0.15)
    fixed_s = network.links[1].fixed_s
    assert network.links[1] == Link(float("inf"), float("inf"), 0.0, fixed_s)
    assert fixed_s + network.links[0].fixed_s == pytest.approx(0.001, rel=1e-3)


def test_a_peer_whose_messages_take_long_has_the_larger_fixed_cost() -> None:
    cost = {REQUESTER: 0.0001, 0: 0.0002, 1: 0.003}
    pairs = [(a, b) for a in cost for b in cost if a != b]
    network = estimate_network([(a, b, 100, cost[a] + cost[b]) for a, b in pairs], 3)
    found = [link.fixed_s for link in (network.requester, *network.links)]
    assert found[:3] == pytest.approx(list(cost.values()), rel=1e-3)
    assert found[3] == pytest.approx(sum(cost.values()) / 3, rel=1e-3), "nothing was seen of it"
