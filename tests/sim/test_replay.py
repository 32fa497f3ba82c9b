"""The replay: what it records, streams, and what goes wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from itertools import pairwise
from math import inf
from pathlib import Path

import pytest

from distredge.plan.draw import random_strategy
from distredge.plan.policy import PlanningProblem
from distredge.sim.pricing import Pricer
from distredge.sim.replay import Replay
from distredge.sim.tables import task_seconds
from distredge.sim.timeline import Timeline

Problems = Callable[..., PlanningProblem]


@pytest.fixture(scope="module")
def timeline(problem_of: Problems) -> Timeline:
    problem = problem_of("vgg16-body")
    strategy = random_strategy(problem.graph, 4, 4, random.Random(1))
    return Pricer(problem).timeline(strategy, frames=5, in_flight=3)


def test_a_device_computes_one_task_at_a_time(timeline: Timeline) -> None:
    for device in range(4):
        spans = sorted((t.start_s, t.end_s) for t in timeline.tasks if t.device == device)
        assert all(before[1] <= after[0] + 1e-12 for before, after in pairwise(spans))
        assert timeline.busy_s(device) <= timeline.makespan_s


def test_nothing_happens_before_its_cause(timeline: Timeline) -> None:
    ends = {(task.frame, task.task): task.end_s for task in timeline.tasks}
    arrivals = {(sent.frame, sent.transfer): sent.arrived_s for sent in timeline.transfers}
    for sent in timeline.transfers:
        made_by = timeline.plan.transfers[sent.transfer].task
        assert sent.queued_s <= sent.start_s <= sent.end_s <= sent.arrived_s
        assert made_by < 0 or sent.queued_s >= ends[sent.frame, made_by]
    for task in timeline.tasks:
        pieces = [p for item in timeline.plan.tasks[task.task].inputs for p in item.pieces]
        waited = [arrivals[task.frame, p.transfer] for p in pieces if p.transfer >= 0]
        assert task.start_s >= max(waited, default=0.0) - 1e-12


def test_in_flight_is_kept(timeline: Timeline) -> None:
    for frame in timeline.frames:
        under_way = [f for f in timeline.frames if f.submitted_s <= frame.submitted_s < f.answered_s]
        assert len(under_way) <= 3


def test_a_critical_path_is_the_whole_latency(timeline: Timeline) -> None:
    for frame in timeline.frames:
        binding = timeline.binding(frame.frame)
        assert sum(binding.seconds.values()) == pytest.approx(frame.latency_s)
        assert 0 < binding.share <= 1


def test_trace_is_what_perfetto_reads(timeline: Timeline, tmp_path: Path) -> None:
    timeline.save_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert len(spans) == len(timeline.frames) + len(timeline.tasks) + len(timeline.transfers)
    assert all(event["dur"] >= 0 for event in spans)


def test_a_fixed_rate_below_capacity_keeps_latency(problem_of: Problems) -> None:
    problem = problem_of("vgg16-body")
    pricer = Pricer(problem)
    strategy = random_strategy(problem.graph, 4, 2, random.Random(2))
    alone = pricer.latency_s(strategy)
    found = pricer.timeline(strategy, frames=6, interval_s=1.1 * alone)
    assert [frame.latency_s for frame in found.frames] == pytest.approx([alone] * 6)


class Disorder:
    """Seeded delays, losses and a crash."""

    def __init__(self, rng: random.Random, lost: float = 0.0, crash: float = inf) -> None:
        self.rng, self.lost, self.crash = rng, lost, crash

    def extra_delay_s(self, frame: int, transfer: int) -> float:
        return inf if self.rng.random() < self.lost else self.rng.expovariate(1 / 0.05)

    def crash_s(self, device: int) -> float:
        return self.crash if device == 1 else inf


@pytest.mark.parametrize("seed", range(5))
def test_delays_reorder_and_nothing_stands_still(seed: int, problem_of: Problems) -> None:
    problem, rng = problem_of("squeezenet"), random.Random(seed)
    pricer = Pricer(problem)
    plan = pricer.compile(random_strategy(problem.graph, 4, 4, rng))
    seconds = task_seconds(problem.graph, plan, pricer.times)
    found = Replay(plan, seconds, problem.network, Disorder(rng)).run(8, in_flight=4)
    assert len(found.frames) == 8


def test_losses_and_crashes_end_the_replay_instead_of_hanging_it(problem_of: Problems) -> None:
    problem, rng = problem_of("vgg16-body"), random.Random(7)
    pricer = Pricer(problem)
    plan = pricer.compile(random_strategy(problem.graph, 4, 3, rng))
    seconds = task_seconds(problem.graph, plan, pricer.times)
    lossy = Replay(plan, seconds, problem.network, Disorder(rng, lost=0.2)).run(4, in_flight=2)
    assert len(lossy.frames) < 4
    crashed = Replay(plan, seconds, problem.network, Disorder(rng, crash=0.1)).run(4, in_flight=2)
    assert all(task.end_s <= 0.1 for task in crashed.tasks if task.device == 1)
