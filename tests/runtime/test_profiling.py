"""A profile measured on a small model can be planned with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distredge.cluster.network import Link, Network
from distredge.cluster.profile import load_profile
from distredge.cluster.segment import segment_rows
from distredge.graph import zoo
from distredge.graph.importer import Model, load_model
from distredge.plan.policy import Device, PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.runtime.joined import JoinedCosts, fit_costs
from distredge.runtime.message_cost import measure_message_s
from distredge.runtime.profiling import find_segments, measure_profile
from distredge.runtime.segment_runner import SegmentRunner
from distredge.sim.pricing import Pricer


@pytest.fixture(scope="module", params=["tiny", "vgg16-body"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("profile") / "model.onnx"
    entry = zoo.get(request.param)
    shape = entry.shape if request.param == "tiny" else (1, 3, 64, 64)
    zoo.write(entry.build(shape), path)
    return load_model(path, {entry.input: shape})


def test_segments_hold_each_node_once(model: Model) -> None:
    nodes = [i for segment in find_segments(model.graph) for i in segment]
    assert sorted(nodes) == list(range(len(model.graph.nodes)))


def test_measured_profile_is_complete_and_can_be_priced(model: Model, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    profile = measure_profile(model, budget_s=2.0, progress=lambda done, of: seen.append((done, of)))
    assert seen[-1][0] == seen[-1][1] == len(profile.segments)
    profile.save(tmp_path / "p.json")
    again = load_profile(tmp_path / "p.json")
    again.check(model.graph, threads=1)
    assert again.boundary_fixed_s == profile.boundary_fixed_s
    assert again.coding_s_per_byte == profile.coding_s_per_byte
    assert sorted(again.coding_s_per_byte) == ["fp16", "int8"]
    assert all(1e-11 < end < 1e-7 for ends in again.coding_s_per_byte.values() for end in ends)
    total = 0.0
    for nodes in again.segments:
        table = again.table(nodes, segment_rows(model.graph, nodes))
        assert (table[1:] > 0).all()
        total += table[-1]
    problem = PlanningProblem(model.graph, (Device("a", again),), Network((Link(),)))
    (volume,) = find_volumes(model.graph, PartitionScheme())
    whole = Strategy(PartitionScheme(), (SplitDecision((0, volume.rows)),))
    pricer = Pricer(problem)
    assert pricer.timeline(whole).busy_s(0) == pytest.approx(
        total + pricer.times[0].fixed_s * len(pricer.compile(whole).tasks), rel=0.5
    )


def test_costs_of_joined_segments() -> None:
    true = np.array([1e-4, 2e-11, 3e-11])
    rows = np.array([(1, 1e6, -2e6), (3, 9e6, -4e6), (7, 2e6, -1e7), (20, 6e7, -4e7)])
    took = np.array([0.01, 0.02, 0.03, 0.1])
    found = fit_costs(rows, rows @ true, took, 1e-3)
    assert (found.fixed_s, found.s_per_byte, found.s_per_weight_byte) == pytest.approx(tuple(true))
    assert fit_costs(rows, rows @ true, took, 5e-5).fixed_s == 5e-5, "no more than the shortest run"
    assert fit_costs(rows, -rows @ [1e-4, 2e-11, 0], took, 1e-3).s_per_byte == 0, "nothing is below 0"
    assert fit_costs(np.zeros((0, 3)), np.zeros(0), np.zeros(0), 1e-3) == JoinedCosts()


def test_layers_before_have_more_rows(model: Model) -> None:
    graph = model.graph
    nodes = tuple(i for i in range(len(graph.nodes)) if i not in graph.tail | graph.head)
    height = segment_rows(graph, nodes)
    runner = SegmentRunner(model, 1)
    assert set(runner.shares(nodes, height).values()) == {1.0}
    few = runner.shares(nodes, max(1, height // 4))
    shares = [few[i] for i in nodes]
    assert shares[0] >= shares[-1] == max(1, height // 4) / height
    assert all(0 < share <= 1 for share in shares)


def test_a_message_costs_a_fraction_of_a_millisecond() -> None:
    assert 1e-6 < measure_message_s() < 1e-2
