"""Plans for streams: whole frames, groups and both; what they are compared with is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from distredge.control.compare import evaluate
from distredge.errors import InputError
from distredge.plan.compile import compile_plan
from distredge.plan.execution import ExecutionPlan
from distredge.plan.objective import Objective
from distredge.plan.policy import PlanningProblem, decide
from distredge.sim.rates import only_device, stream_rate
from policies.auto import Auto
from policies.groupings import groupings, sizes
from policies.parts import pricer_for, single_device
from policies.pipeline import pipeline
from policies.replicate import Replicate
from tests.policies.problems import all_tail, branches, chain, problem

THROUGHPUT = Objective(wants_rate=True)
AUTO = Auto(evaluations=500)


def asked(base: PlanningProblem, objective: Objective = THROUGHPUT) -> PlanningProblem:
    return replace(base, objective=objective, budget_s=2.0)


def test_objectives_are_read_and_written() -> None:
    for text in ("latency", "throughput", "latency-at-rate=12.5"):
        assert str(Objective.parse(text)) == text
    for text in (
        "fast",
        "latency-at-rate=",
        "latency-at-rate=-1",
        "latency-at-rate=inf",
        "latency-at-rate=x",
    ):
        with pytest.raises(InputError, match="objective"):
            Objective.parse(text)


def test_equal_devices_take_whole_frames() -> None:
    row = evaluate(asked(problem(chain(), gflops=(1.0,) * 3, mbps=(1e4,) * 3)), AUTO)
    assert row.winner == "replicate"
    assert row.images_per_second == pytest.approx(3 * row.best_device_images_per_second, rel=1e-6)
    assert row.loses_to == ""
    assert row.strategy is not None
    assert sorted(only_device(way) for way in row.strategy.ways) == [0, 1, 2]
    assert row.to_json()["replicate_images_per_second"] == pytest.approx(row.images_per_second)


@pytest.mark.parametrize("graph", [chain(), branches(), all_tail()])
def test_auto_never_loses(graph: object) -> None:
    for mbps in ((100.0,) * 3, (1.0, 50.0, 1000.0)):
        row = evaluate(asked(problem(graph, mbps=mbps)), AUTO)  # type: ignore[arg-type]
        assert row.loses_to == ""
        assert row.images_per_second >= 0.995 * max(row.rates.values())


def test_other_policies_say_that_they_lose() -> None:
    row = evaluate(asked(problem(chain(), mbps=(1000.0, 0.5, 0.5))), "equal")
    assert "replicate" in row.loses_to
    assert "d0 alone" in row.loses_to


def test_a_device_without_room_for_the_model_joins_a_group() -> None:
    """Alone it can do nothing, so that `replicate` leaves it out, and a mixture wins."""
    graph = chain(rows=64, layers=6)
    free = problem(graph, gflops=(0.01,) * 3, mbps=(1e5,) * 3)
    need = float(pricer_for(free).memory_bytes(single_device(free, 0)).max())
    tight = problem(graph, gflops=(0.01,) * 3, mbps=(1e5,) * 3, memory_bytes=(need, 0.8 * need, 0.8 * need))
    row = evaluate(asked(tight), AUTO)
    assert row.replicate_images_per_second == pytest.approx(row.best_device_images_per_second)
    assert row.images_per_second > 1.5 * row.replicate_images_per_second


def test_latency_at_rate_takes_the_fewest_frames_at_once_that_suffice() -> None:
    base = problem(chain(rows=64), gflops=(0.1,) * 4, mbps=(200.0,) * 4)
    alone = evaluate(base, AUTO)
    most = evaluate(asked(base), AUTO)
    assert alone.latency_s is not None
    for share in (0.1, 0.9):
        row = evaluate(asked(base, Objective(rate=share * most.images_per_second)), AUTO)
        assert row.sustains
        assert row.images_per_second >= share * most.images_per_second
    easy = evaluate(asked(base, Objective(rate=0.1 * most.images_per_second)), AUTO)
    assert easy.latency_s <= 1.05 * alone.latency_s
    never = evaluate(asked(base, Objective(rate=10 * most.images_per_second)), AUTO)
    assert not never.sustains
    assert never.why.startswith("no plan sustains")
    assert never.images_per_second == pytest.approx(most.images_per_second, rel=0.01)


def test_groupings_name_every_device_once() -> None:
    for count in (1, 2, 3, 5, 40):
        order = list(range(count))[::-1]
        for name, grouping in groupings(order, frozenset(order)):
            assert sorted(device for group in grouping for device in group) == sorted(order), name
    assert all((2,) not in each for _, each in groupings([0, 1, 2], frozenset({0, 1})))
    assert sizes(3) == [1, 2, 3]
    assert sizes(1024)[-1] == 1024
    assert len(sizes(1024)) <= 8


def test_a_pipeline_shares_work_out_by_speed() -> None:
    base = problem(chain(rows=64, layers=8), gflops=(1.0, 1.0), mbps=(1e6,) * 2)
    pricer = pricer_for(base)
    strategy = pipeline(pricer, (1, 0))
    assert strategy.scheme.volumes == 2
    alone = stream_rate(pricer, single_device(base, 0)).images_per_second
    assert 1.2 * alone < stream_rate(pricer, strategy).images_per_second <= 2.01 * alone


def test_a_dealt_plan_is_saved_and_read(tmp_path: Path) -> None:
    base = problem(chain())
    strategy = decide(base, Replicate()).strategy
    plan = compile_plan(base.graph, strategy, [device.name for device in base.devices])
    plan.validate()
    plan.save(tmp_path / "plan.json")
    again = ExecutionPlan.load(tmp_path / "plan.json")
    assert again == plan
    assert len(again.ways) == 3
    assert again.strategy.ways == strategy.ways
