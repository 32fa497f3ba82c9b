"""What segments take in one session, against what they took one by one.

Apart, each has a run of its own, takes its input in and gives its output away; and it finds its weights in
the processor's cache, having just used them. How much each of these counts is found from runs of several
segments as one, of various lengths and heights. Pairs of neighbours at their full height do not tell: by
them a byte at a border costs several times what it does in a volume of many layers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import median

import numpy as np

from distredge.cluster.segment import segment_rows
from distredge.graph.model import Graph
from distredge.runtime.engine import Array
from distredge.runtime.segment_runner import Piecework, SegmentRunner, Stopwatch, time_runs

JOINED = ((4, 1.0), (4, 0.3), (8, 0.15), (1, 1.0), (8, 1.0), (2, 0.5), (8, 0.4), (12, 1.0), (12, 0.3))
"""Into how many parts the body is cut, and what share of its rows runs; the first ones tell most."""
_SCALE = np.array([1.0, 1e-6, 1e-6])
"""Seconds and seconds a byte, so that the least squares see numbers of about one size."""


@dataclass(frozen=True)
class SegmentTimes:
    """What was measured of one segment by itself.

    Attributes:
        nodes: the segment.
        seconds: by rows, every sample.
        works: by rows, what ran.
    """

    nodes: tuple[int, ...]
    seconds: dict[int, tuple[float, ...]]
    works: dict[int, Piecework]

    def at(self, rows: float) -> tuple[float, float, float]:
        """Seconds, tasks and bytes moved, linear between what was measured."""
        if not self.seconds:
            return 0.0, 0.0, 0.0
        known = sorted(self.seconds)
        columns = (
            [median(self.seconds[r]) for r in known],
            [self.works[r].tasks for r in known],
            [self.works[r].moved_bytes for r in known],
        )
        seconds, tasks, moved = (float(np.interp(rows, known, column)) for column in columns)
        return seconds, tasks, moved


@dataclass(frozen=True)
class JoinedCosts:
    """What is left out of a segment's times, and what is added to them.

    Attributes:
        fixed_s: what a task costs beside its nodes.
        s_per_byte: what each byte costs that a task takes or gives.
        s_per_weight_byte: what each byte of weights costs that other layers have put out of the cache.
    """

    fixed_s: float = 0.0
    s_per_byte: float = 0.0
    s_per_weight_byte: float = 0.0


def measure_joined(
    runner: SegmentRunner, watch: Stopwatch, graph: Graph, apart: Sequence[SegmentTimes], budget_s: float
) -> JoinedCosts:
    """Runs segments together.

    Args:
        runner: of the model.
        watch: times it.
        graph: the model's.
        apart: each segment of the body by itself, in order.
        budget_s: about how long it may take.
    """
    end = time.perf_counter() + budget_s
    rows: list[tuple[float, float, float]] = []
    saved: list[float] = []
    took: list[float] = []
    for group, share in _groups(apart):
        if time.perf_counter() > end:
            break
        nodes = tuple(i for each in group for i in each.nodes)
        height = max(1, round(share * segment_rows(graph, nodes)))
        work = runner.prepare(nodes, height)
        if work is None:
            continue
        seconds = median(time_runs(watch, work))
        alone, tasks, moved = _sum_of(graph, group, runner.shares(nodes, height))
        rows.append((tasks - work.tasks, moved - work.moved_bytes, -weight_bytes(graph, nodes)))
        saved.append(alone - seconds)
        took.append(seconds)
        runner.forget_sessions()
    shortest = min((min(each.at(r)[0] / each.at(r)[1] for r in each.seconds) for each in apart), default=0.0)
    return fit_costs(np.array(rows).reshape(-1, 3), np.array(saved), np.array(took), shortest)


def _groups(apart: Sequence[SegmentTimes]) -> Iterator[tuple[Sequence[SegmentTimes], float]]:
    """Segments that run as one, and with what share of the rows."""
    for parts, share in JOINED:
        ends = np.linspace(0, len(apart), parts + 1).round().astype(int)
        for first, last in pairwise(ends):
            if last - first > 1:
                yield apart[first:last], share


def _sum_of(
    graph: Graph, group: Sequence[SegmentTimes], shares: dict[int, float]
) -> tuple[float, float, float]:
    """Seconds, tasks and bytes moved of segments, each by itself, with the rows that they have together."""
    found = [
        each.at(shares[each.nodes[-1]] * segment_rows(graph, each.nodes))
        for each in group
        if each.nodes[-1] in shares
    ]
    seconds, tasks, moved = (sum(column) for column in zip(*found, strict=True))
    return seconds, tasks, moved


def weight_bytes(graph: Graph, nodes: Sequence[int]) -> int:
    """Bytes of all constants that some nodes read."""
    names = {name for i in nodes for name in graph.nodes[i].inputs if name}
    return sum(graph.tensors[name].total_bytes for name in names if graph.tensors[name].constant)


def fit_costs(rows: Array, saved: Array, took: Array, most_s: float) -> JoinedCosts:
    """Least squares of three costs, none below 0, by what each run is off in parts of itself.

    Args:
        rows: per run, the tasks and bytes moved that joining saves, and minus the bytes of its weights.
        saved: seconds that joining saves.
        took: seconds of each run.
        most_s: a task costs no more than the shortest run of all.
    """
    if not len(saved):
        return JoinedCosts()
    terms, off = rows * _SCALE / took[:, None], saved / took
    found = _least_squares(terms, off)
    if found[0] > most_s:
        found = np.array([most_s, *_least_squares(terms[:, 1:], off - most_s * terms[:, 0])])
    fixed, per_byte, per_weight = found * _SCALE
    return JoinedCosts(float(fixed), float(per_byte), float(per_weight))


def _least_squares(terms: Array, wanted: Array) -> Array:
    """None of the unknowns below 0: the best of all choices of those that are not 0."""
    count = terms.shape[1]
    solutions = [np.zeros(count)]
    for kept in (list(some) for size in range(count) for some in combinations(range(count), size + 1)):
        solution = np.zeros(count)
        solution[kept] = np.linalg.lstsq(terms[:, kept], wanted, rcond=None)[0]
        if (solution >= 0).all():
            solutions.append(solution)
    return min(solutions, key=lambda solution: float(((terms @ solution - wanted) ** 2).sum()))
