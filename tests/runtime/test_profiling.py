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
from distredge.runtime.message_cost import measure_message_s
from distredge.runtime.profiling import _fit, find_segments, measure_profile
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


def test_boundary_costs_are_never_below_zero() -> None:
    exact = [(1.0, size, 1e-4 + 2e-10 * size) for size in (1e5, 1e6, 4e6)]
    assert _fit(exact) == pytest.approx((1e-4, 2e-10))
    assert _fit([(1.0, 1e6, -1e-3), (1.0, 2e6, -2e-3)]) == (0.0, 0.0)
    assert _fit([]) == (0.0, 0.0)
    falling = np.array(_fit([(1.0, 1e6, 3e-3), (1.0, 4e6, 1e-3)]))
    assert (falling >= 0).all()


def test_a_message_costs_a_fraction_of_a_millisecond() -> None:
    assert 1e-6 < measure_message_s() < 1e-2
