"""Measures this machine on one model: rows -> seconds of each segment, with the sessions that peers use."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np

from distredge.cluster.machine import cpu_quota, this_machine
from distredge.cluster.profile import DeviceProfile, SegmentSamples
from distredge.cluster.segment import segment_rows
from distredge.graph.importer import Model
from distredge.graph.model import Graph
from distredge.plan.compile import compile_plan
from distredge.plan.crossing import head_cuts
from distredge.plan.execution import ExecutionPlan, Piece, Task, TensorInfo
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.runtime.coding_cost import measure_coding
from distredge.runtime.engine import Array, Engine, FrameStore, PartSessions, numpy_dtype

WORK_SHARE = 0.01
"""A segment ends where it holds at least this share of the model's work."""
SAMPLES = 5
BEND = 0.05
"""Between two row counts another one is measured where the middle one's time is off their line by more."""
FEWEST_ROWS_APART = 2
MOST_ROW_COUNTS = 17
PAIRS = 6
"""Borders between segments at which the boundary cost is measured."""
PAIR_SAMPLES = 11
CACHE_BYTES = 128 * 1024 * 1024
"""More than a cache holds."""
_MIDDLE = 1
"""The device that is measured; those before and behind it own the other rows."""


class Stopwatch:
    """Times runs so that other programs, and the moment at which a run begins, disturb them little.

    A session with one thread does its work in the thread that calls it: that thread's own time leaves out
    what others took (on a machine with twice as many busy programs as cores, the wall clock doubled and
    this stayed within 2 %). With more threads only the wall clock tells.

    A CPU quota lets a short run pass at full speed or stops it for the rest of a period, by luck, so that
    wall times have two peaks of which neither is true. Work that keeps on takes its processor time over the
    quota.
    """

    def __init__(self, threads: int) -> None:
        quota = cpu_quota()
        is_held_back = quota is not None and quota < threads
        self._share = quota if is_held_back and quota else 1.0
        if threads == 1:
            self._clock = time.thread_time
        else:
            self._clock = time.process_time if is_held_back else time.perf_counter

    def time(self, run: Callable[[], object]) -> float:
        """Seconds of one run."""
        start = self._clock()
        run()
        return (self._clock() - start) / self._share


@dataclass(frozen=True)
class Piecework:
    """One segment with some rows, ready to run again and again.

    Attributes:
        moved_bytes: of the tasks' inputs and outputs.
        tasks: how many sessions it takes.
    """

    run: Callable[[], None]
    moved_bytes: int
    tasks: int


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


class SegmentRunner:
    """Runs segments of one model with any number of rows, as a peer would.

    Args:
        model: the model.
        threads: of each session.
        seed: of the data.
    """

    def __init__(self, model: Model, threads: int, seed: int = 0) -> None:
        self._graph = model.graph
        self._sessions = PartSessions(model.onnx, model.weights.parent, threads=threads)
        self._names = {model.graph.producer[name]: name for name in model.graph.cut_points}
        self._rng = np.random.default_rng(seed)

    def prepare(self, nodes: tuple[int, ...], rows: int) -> Piecework | None:
        """Sessions and data for the middle rows of a segment; None if nothing would run.

        Args:
            nodes: consecutive ones, from one cut to another, or the tail.
            rows: of the segment's reference tensor.
        """
        plan = self._plan(nodes, rows)
        tasks = [task for task in plan.tasks if task.device == _MIDDLE and task.volume == self._volume]
        if not tasks:
            return None
        store = FrameStore(plan)
        engine = Engine(plan, _MIDDLE, self._sessions, store)
        for task in tasks:
            self._fill(plan, store, task)
        moved = sum(plan.moved_bytes(task) for task in tasks)

        def run() -> None:
            for task in tasks:
                engine.run(0, task.id)

        return Piecework(run, moved, len(tasks))

    def forget_sessions(self) -> None:
        """Frees memory."""
        self._sessions.keep_only(set())

    def _plan(self, nodes: tuple[int, ...], rows: int) -> ExecutionPlan:
        graph = self._graph
        body = [i for i in range(len(graph.nodes)) if i not in graph.tail]
        is_tail = nodes[0] in graph.tail
        cuts = []
        if not is_tail:
            before = body.index(nodes[0])
            if before:
                cuts.append(self._names[body[before - 1]])
            if nodes[-1] != body[-1]:
                cuts.append(self._names[nodes[-1]])
        self._volume = 1 if is_tail or (cuts and nodes[0] != body[0]) else 0
        volumes = find_volumes(graph, PartitionScheme(tuple(cuts)))
        share = rows / volumes[self._volume].rows if not is_tail else 1.0
        splits = []
        for at, volume in enumerate(volumes):
            own = rows if at == self._volume else min(volume.rows, max(1, round(share * volume.rows)))
            step = _step(graph, volume.nodes)
            top = (volume.rows - own) // 2 // step * step
            splits.append(SplitDecision((0, top, top + own, volume.rows)))
        return compile_plan(
            graph, Strategy(PartitionScheme(tuple(cuts)), tuple(splits), _MIDDLE), ("above", "this", "below")
        )

    def _fill(self, plan: ExecutionPlan, store: FrameStore, task: Task) -> None:
        for item in task.inputs:
            info = plan.tensors[item.tensor]
            for piece in item.pieces:
                self._put(plan, store, item.tensor, info, piece)

    def _put(self, plan: ExecutionPlan, store: FrameStore, name: str, info: TensorInfo, piece: Piece) -> None:
        if piece.transfer >= 0:
            rows = plan.transfers[piece.transfer].rows
            store.put_transfer(0, piece.transfer, self._data(info.dtype, info.part_shape(rows)))
            return
        made = {out.tensor: out.rows for out in plan.tasks[piece.task].outputs}
        store.put_outputs(0, piece.task, {name: self._data(info.dtype, info.part_shape(made[name]))})

    def _data(self, dtype: str, shape: tuple[int, ...]) -> Array:
        kind = numpy_dtype(dtype)
        if kind.kind == "f" and kind.itemsize >= 4:
            return self._rng.standard_normal(shape, dtype=np.float32).astype(kind, copy=False)
        return np.full(shape, "" if kind.hasobject else 0, kind)


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
    found: list[tuple[tuple[int, ...], dict[int, tuple[float, ...]], dict[int, Piecework]]] = []
    end = time.perf_counter() + 0.85 * budget_s
    for at, nodes in enumerate(segments):
        share = (end - time.perf_counter()) / (len(segments) - at)
        found.append((nodes, *_measure_segment(runner, watch, graph, nodes, share)))
        progress(at + 1, len(segments))
    fixed_s, s_per_byte = _boundary_cost(runner, watch, graph, found, 0.15 * budget_s)
    samples = {}
    for nodes, seconds, works in found:
        net = {
            rows: tuple(_net(s, works[rows], fixed_s, s_per_byte) for s in each)
            for rows, each in seconds.items()
        }
        samples[nodes] = SegmentSamples(nodes, net)
    samples = _with_cold_weights(runner, watch, graph, samples, fixed_s, s_per_byte)
    return DeviceProfile(
        device=device,
        model=graph.name,
        graph=graph.digest,
        machine=this_machine().fingerprint,
        threads=threads,
        execution_provider="CPUExecutionProvider",
        segments=samples,
        boundary_fixed_s=fixed_s,
        boundary_s_per_byte=s_per_byte,
        coding_s_per_byte=measure_coding(watch.time),
    )


def _net(seconds: float, work: Piecework, fixed_s: float, s_per_byte: float) -> float:
    """A sample without its boundary cost; at least a tenth of it."""
    return max(0.1 * seconds, seconds - work.tasks * fixed_s - work.moved_bytes * s_per_byte)


def _with_cold_weights(
    runner: SegmentRunner,
    watch: Stopwatch,
    graph: Graph,
    samples: dict[tuple[int, ...], SegmentSamples],
    fixed_s: float,
    s_per_byte: float,
) -> dict[tuple[int, ...], SegmentSamples]:
    """The samples as they are when other layers ran in between.

    A segment that runs again and again finds its weights in the processor's cache; in a frame they come from
    memory. What the body takes as a whole over the sum of its segments is divided among them by the bytes of
    their weights. Those of head and tail were not in the cache.
    """
    last = graph.tail | graph.head
    body = {nodes: each for nodes, each in samples.items() if not last.intersection(nodes)}
    nodes = tuple(i for segment in body for i in segment)
    work = runner.prepare(nodes, segment_rows(graph, nodes)) if nodes else None
    weights = {segment: _weights_bytes(graph, segment) for segment in body}
    if work is None or not sum(weights.values()):
        return samples
    apart = sum(median(each.seconds[each.rows[-1]]) for each in body.values())
    apart += work.tasks * fixed_s + work.moved_bytes * s_per_byte
    cold = max(0.0, median(_time(watch, work)) - apart) / sum(weights.values())
    runner.forget_sessions()
    return samples | {
        segment: SegmentSamples(
            segment,
            {
                rows: tuple(s + cold * weights[segment] for s in seconds)
                for rows, seconds in each.seconds.items()
            },
        )
        for segment, each in body.items()
    }


def _weights_bytes(graph: Graph, nodes: tuple[int, ...]) -> int:
    names = {name for i in nodes for name in graph.nodes[i].inputs if name}
    return sum(graph.tensors[name].total_bytes for name in names if graph.tensors[name].constant)


def _measure_segment(
    runner: SegmentRunner, watch: Stopwatch, graph: Graph, nodes: tuple[int, ...], budget_s: float
) -> tuple[dict[int, tuple[float, ...]], dict[int, Piecework]]:
    """Row counts that follow the bends of the table, widest gaps first, until time is up."""
    end = time.perf_counter() + budget_s
    height = segment_rows(graph, nodes)
    between = _filler() if graph.head.issuperset(nodes) else _nothing
    seconds: dict[int, tuple[float, ...]] = {}
    works: dict[int, Piecework] = {}

    def measure(rows: int) -> float:
        if rows not in seconds:
            work = runner.prepare(nodes, rows)
            if work is None:
                return 0.0
            seconds[rows] = tuple(_time(watch, work, between))
            works[rows] = work
        return median(seconds[rows])

    measure(height)
    if nodes[0] in graph.tail:
        runner.forget_sessions()
        return seconds, works
    step = _step(graph, nodes)
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
    kept = {rows: works[rows] for rows in seconds}
    return seconds, {rows: Piecework(_nothing, w.moved_bytes, w.tasks) for rows, w in kept.items()}


def _step(graph: Graph, nodes: tuple[int, ...]) -> int:
    """Rows by which a segment is cut: 64 features of a layer that is shared out by them."""
    made = (out for i in nodes if i in graph.head for out in graph.nodes[i].outputs if out)
    return max((graph.tensors[out].quantum for out in made), default=1)


def _nothing() -> None:
    """In place of a run whose buffers are freed."""


def _filler() -> Callable[[], None]:
    """Fills the processor's caches with something else: a layer of the head does little but read its weights,
    and in a frame these come from memory."""
    other = np.zeros(CACHE_BYTES // 4, dtype=np.float32)

    def fill() -> None:
        np.add(other, 1, out=other)

    return fill


def _time(watch: Stopwatch, work: Piecework, between: Callable[[], None] = _nothing) -> Iterator[float]:
    """Seconds of several runs, the first left out."""
    work.run()
    for _ in range(SAMPLES):
        between()
        yield watch.time(work.run)


def _boundary_cost(
    runner: SegmentRunner,
    watch: Stopwatch,
    graph: Graph,
    found: list[tuple[tuple[int, ...], dict[int, tuple[float, ...]], dict[int, Piecework]]],
    budget_s: float,
) -> tuple[float, float]:
    """What a border costs: two segments one by one against both in one session, at several borders.

    Returns:
        Seconds for each task, and for each byte of its inputs and outputs; least squares, neither below 0.
    """
    end = time.perf_counter() + budget_s
    last = graph.tail | graph.head
    pairs = [(a[0], b[0]) for a, b in pairwise(found) if not last.intersection(a[0] + b[0])]
    chosen = (
        [pairs[i] for i in sorted({round(x) for x in np.linspace(0, len(pairs) - 1, PAIRS)})] if pairs else []
    )
    costs: list[tuple[float, float, float]] = []
    for first, second in chosen:
        if time.perf_counter() > end:
            break
        works = [
            runner.prepare(nodes, segment_rows(graph, nodes)) for nodes in (first, second, first + second)
        ]
        if any(work is None for work in works):
            continue
        one: list[float] = []
        two: list[float] = []
        both: list[float] = []
        for _ in range(PAIR_SAMPLES + 1):  # interleaved: what else the machine does falls on all alike
            for work, times in zip(works, (one, two, both), strict=True):
                assert work is not None
                times.append(watch.time(work.run))
        a, b, c = (work for work in works if work is not None)
        extra = median(one[1:]) + median(two[1:]) - median(both[1:])
        costs.append((a.tasks + b.tasks - c.tasks, a.moved_bytes + b.moved_bytes - c.moved_bytes, extra))
        runner.forget_sessions()
    return _fit(costs)


def _fit(costs: list[tuple[float, float, float]]) -> tuple[float, float]:
    """Non-negative least squares of two unknowns."""
    if not costs:
        return 0.0, 0.0
    table = np.array(costs)
    scale = np.array([1.0, 1e-6])
    terms, extra = table[:, :2] * scale, table[:, 2]
    best = min(
        (_solve(terms, extra, kept) for kept in ((0, 1), (0,), (1,), ())),
        key=lambda solved: float(((terms @ solved - extra) ** 2).sum()) if (solved >= 0).all() else np.inf,
    )
    fixed, per_byte = best * scale
    return float(fixed), float(per_byte)


def _solve(terms: Array, extra: Array, kept: tuple[int, ...]) -> Array:
    solved = np.zeros(terms.shape[1])
    if kept:
        solved[list(kept)] = np.linalg.lstsq(terms[:, list(kept)], extra, rcond=None)[0]
    return solved
