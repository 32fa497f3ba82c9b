"""Runs consecutive nodes of a model with any number of rows, and times them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from distredge.cluster.machine import cpu_quota
from distredge.graph.importer import Model
from distredge.graph.model import Graph
from distredge.plan.compile import compile_plan
from distredge.plan.demand import Ownership, find_demand
from distredge.plan.execution import ExecutionPlan, Piece, Task, TensorInfo
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.runtime.engine import Array, Engine, FrameStore, PartSessions, numpy_dtype

SAMPLES = 5
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

    def shares(self, nodes: tuple[int, ...], rows: int) -> dict[int, float]:
        """Of each node's rows, the share that it computes for so many rows of all; halo included, 1 where it
        runs whole. Nodes that would not run are left out."""
        graph, strategy = self._graph, self._plan(nodes, rows).strategy
        volume = find_volumes(graph, strategy.scheme)[self._volume]
        own = Ownership(graph, strategy.splits[self._volume])
        demand = find_demand(graph, volume, own, lambda name: graph.tensors[name].rows, _MIDDLE, lead=True)
        made = {i: next(filter(None, graph.nodes[i].outputs)) for i in demand.needs}
        return {i: demand.makes[name].size / max(1, graph.tensors[name].rows) for i, name in made.items()}

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
            step = row_step(graph, volume.nodes)
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


def row_step(graph: Graph, nodes: tuple[int, ...]) -> int:
    """Rows by which a segment is cut: 64 features of a layer that is shared out by them."""
    made = (out for i in nodes if i in graph.head for out in graph.nodes[i].outputs if out)
    return max((graph.tensors[out].quantum for out in made), default=1)


def nothing() -> None:
    """In place of a run whose buffers are freed."""


def time_runs(watch: Stopwatch, work: Piecework, between: Callable[[], None] = nothing) -> Iterator[float]:
    """Seconds of several runs, the first left out."""
    work.run()
    for _ in range(SAMPLES):
        between()
        yield watch.time(work.run)
