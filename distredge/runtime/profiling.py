"""Measures this machine on one model: rows -> seconds of each segment, with the sessions that peers use."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np

from distredge.cluster.machine import this_machine
from distredge.cluster.profile import DeviceProfile, SegmentSamples
from distredge.cluster.segment import segment_rows
from distredge.graph.importer import Model
from distredge.graph.model import Graph
from distredge.plan.crossing import head_cuts
from distredge.runtime.coding_cost import measure_coding
from distredge.runtime.joined import JoinedCosts, SegmentTimes, measure_joined, weight_bytes
from distredge.runtime.segment_runner import Piecework, SegmentRunner, Stopwatch, nothing, row_step, time_runs

WORK_SHARE = 0.01
"""A segment ends where it holds at least this share of the model's work."""
BEND = 0.05
"""Between two row counts another one is measured where the middle one's time is off their line by more."""
FEWEST_ROWS_APART = 2
MOST_ROW_COUNTS = 17
JOINED_SHARE = 0.25
"""Of the time, for runs of several segments as one."""
CACHE_BYTES = 128 * 1024 * 1024
"""More than a cache holds."""


def find_segments(graph: Graph) -> list[tuple[int, ...]]:
    """Consecutive nodes with at least WORK_SHARE of the work each; each layer of the head is one of its own,
    and so is the tail."""
    total = sum(node.macs for node in graph.nodes)
    ends = {graph.producer[name] for name in graph.cut_points}
    borders = {graph.producer[name] for name in head_cuts(graph)}
    body = [i for i in range(len(graph.nodes)) if i not in graph.tail]
    segments: list[list[int]] = [[]]
    done = 0.0
    for i in body:
        # a segment goes on to the next node with work in it, so that activations and pools stay with theirs
        before = segments[-1][-1] if segments[-1] else -1
        enough = done >= WORK_SHARE * total and graph.nodes[i].macs and i not in graph.head
        if before in borders or (enough and before in ends):
            segments.append([])
            done = 0.0
        segments[-1].append(i)
        done += graph.nodes[i].macs
    if graph.tail:
        segments.append(sorted(graph.tail))
    return [tuple(segment) for segment in segments if segment]


def measure_profile(
    model: Model,
    *,
    threads: int = 1,
    budget_s: float = 45.0,
    device: str = "this",
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> DeviceProfile:
    """Measures this machine.

    Args:
        model: the model.
        threads: of the inference engine.
        budget_s: about how long it may take.
        device: a name for the profile.
        progress: called with segments done and segments in all.

    Raises:
        ModelError: the inference engine refuses a part of the model.
    """
    graph = model.graph
    segments = find_segments(graph)
    runner, watch = SegmentRunner(model, threads), Stopwatch(threads)
    found: list[SegmentTimes] = []
    end = time.perf_counter() + (1 - JOINED_SHARE) * budget_s
    for at, nodes in enumerate(segments):
        share = (end - time.perf_counter()) / (len(segments) - at)
        found.append(_measure_segment(runner, watch, graph, nodes, share))
        progress(at + 1, len(segments))
    last = graph.tail | graph.head
    body = [each for each in found if not last.intersection(each.nodes)]
    costs = measure_joined(runner, watch, graph, body, JOINED_SHARE * budget_s)
    samples = {}
    for each in found:
        # Those of head and tail come from memory already.
        weights_s = (
            0.0
            if last.intersection(each.nodes)
            else costs.s_per_weight_byte * weight_bytes(graph, each.nodes)
        )
        samples[each.nodes] = _net(each, costs, weights_s)
    return DeviceProfile(
        device=device,
        model=graph.name,
        graph=graph.digest,
        machine=this_machine().fingerprint,
        threads=threads,
        execution_provider="CPUExecutionProvider",
        segments=samples,
        boundary_fixed_s=costs.fixed_s,
        boundary_s_per_byte=costs.s_per_byte,
        coding_s_per_byte=measure_coding(watch.time),
    )


def _net(apart: SegmentTimes, costs: JoinedCosts, weights_s: float) -> SegmentSamples:
    """A segment's samples in company: without their boundaries, at least a tenth of them; with weights that
    come from memory."""
    seconds = {}
    for rows, samples in apart.seconds.items():
        work = apart.works[rows]
        border_s = work.tasks * costs.fixed_s + work.moved_bytes * costs.s_per_byte
        seconds[rows] = tuple(max(0.1 * each, each - border_s) + weights_s for each in samples)
    return SegmentSamples(apart.nodes, seconds)


def _measure_segment(
    runner: SegmentRunner, watch: Stopwatch, graph: Graph, nodes: tuple[int, ...], budget_s: float
) -> SegmentTimes:
    """Row counts that follow the bends of the table, widest gaps first, until time is up."""
    end = time.perf_counter() + budget_s
    height = segment_rows(graph, nodes)
    between = _filler() if graph.head.issuperset(nodes) else nothing
    seconds: dict[int, tuple[float, ...]] = {}
    works: dict[int, Piecework] = {}

    def measure(rows: int) -> float:
        if rows not in seconds:
            work = runner.prepare(nodes, rows)
            if work is None:
                return 0.0
            seconds[rows] = tuple(time_runs(watch, work, between))
            works[rows] = work
        return median(seconds[rows])

    measure(height)
    if nodes[0] in graph.tail:
        runner.forget_sessions()
        return SegmentTimes(nodes, seconds, works)
    step = row_step(graph, nodes)
    measure(min(step, height))
    gaps = [(step, height)]
    while gaps and time.perf_counter() < end and len(seconds) < MOST_ROW_COUNTS:
        low, high = gaps.pop(0)
        middle = (low + high) // 2 // step * step
        if middle <= low or high - low <= FEWEST_ROWS_APART * step:
            continue
        line = measure(low) + (measure(high) - measure(low)) * (middle - low) / (high - low)
        got = measure(middle)
        if abs(got - line) > BEND * max(got, line) or high - low > height // 2:
            gaps += [(low, middle), (middle, high)]
    runner.forget_sessions()
    kept = {rows: Piecework(nothing, w.moved_bytes, w.tasks) for rows, w in works.items()}
    return SegmentTimes(nodes, seconds, kept)


def _filler() -> Callable[[], None]:
    """Fills the processor's caches with something else: a layer of the head does little but read its weights,
    and in a frame these come from memory."""
    other = np.zeros(CACHE_BYTES // 4, dtype=np.float32)

    def fill() -> None:
        np.add(other, 1, out=other)

    return fill
