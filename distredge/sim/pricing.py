"""What a strategy costs, exactly and fast: the evaluator that policies search with.

`Pricer` and `SchemePricer` are for Python. A search that moves cuts and rows inside numba uses what they
stand on: `Pricer.packed`, `new_program`, `new_work`, `build_program` (microseconds for a scheme) and `price`
(microseconds for a strategy).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cached_property

import numpy as np

from distredge.errors import StrategyError
from distredge.plan.compile import check_strategy, compile_plan
from distredge.plan.execution import ExecutionPlan
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import Volume, cut_positions, find_volumes
from distredge.sim.batch import check_bounds, price_batch
from distredge.sim.kernel import Work, new_work
from distredge.sim.memory import MemoryEstimate
from distredge.sim.packed import Packed, pack, repacked, with_lanes
from distredge.sim.program import Program, build_program, new_program
from distredge.sim.records import Floats, Ints
from distredge.sim.replay import replay
from distredge.sim.tables import NodeTimes, node_times, plan_work, task_seconds
from distredge.sim.timeline import Timeline

NO_TIMES = np.zeros((0, 0, 0))


class Pricer:
    """Prices strategies for one problem.

    Attributes:
        problem: the problem.
        times: per device, seconds of every node by rows.
        memory: bytes that strategies need.
        lanes: of the strategies that it is laid out for; see `Strategy`.
    """

    def __init__(self, problem: PlanningProblem) -> None:
        self.problem = problem
        shared: dict[int, NodeTimes] = {}
        for device in problem.devices:
            if id(device.times) not in shared:
                shared[id(device.times)] = node_times(problem.graph, device.times)
        self.times: tuple[NodeTimes, ...] = tuple(shared[id(d.times)] for d in problem.devices)
        self.memory = MemoryEstimate(problem.graph, len(problem.devices))
        self.lanes: tuple[int, ...] = ()
        self._laned: dict[tuple[int, ...], Pricer] = {}
        self._room: tuple[Program, Work, int] | None = None

    @cached_property
    def packed(self) -> Packed | None:
        """The problem as the compiled evaluator reads it; None if the graph has a row rule it cannot."""
        return pack(self.problem.graph, self.times, self.problem.network, self.problem.wire)

    def on(self, problem: PlanningProblem) -> Pricer:
        """A pricer of a problem with the same graph, devices and wire but other links; quick to make."""
        other = copy(self)
        other.problem = problem
        other._laned = {}
        other._room = None
        if self.packed is not None:
            other.packed = repacked(self.packed, problem.network)
        return other

    def on_lanes(self, lanes: Sequence[int]) -> Pricer:
        """A pricer of the same problem for strategies with these lanes; made once."""
        lanes = tuple(lanes)
        if lanes == self.lanes:
            return self
        if lanes not in self._laned:
            other = copy(self)
            other.lanes, other._room = lanes, None
            if self.packed is not None:
                other.packed = with_lanes(self.packed, lanes or range(len(self.problem.devices)))
            self._laned[lanes] = other
        return self._laned[lanes]

    @cached_property
    def cut_nodes(self) -> Ints:
        """Node that each of `Graph.cut_points` is made by, rising: what `build_program` takes as ends."""
        graph = self.problem.graph
        return np.array([graph.producer[name] for name in graph.cut_points], dtype=np.int64)

    def room(self, volumes: int) -> tuple[Program, Work]:
        """Scratch for schemes of so many volumes; the next call may give the same."""
        assert self.packed is not None
        if self._room is None or self._room[2] < volumes:
            size = max(volumes, 8)
            self._room = new_program(self.packed, size), new_work(self.packed, size), size
        return self._room[0], self._room[1]

    def compile(self, strategy: Strategy) -> ExecutionPlan:
        """The plan of a strategy.

        Raises:
            StrategyError: it does not fit the problem.
        """
        names = [device.name for device in self.problem.devices]
        return compile_plan(self.problem.graph, strategy, names, wire=self.problem.wire)

    def timeline(
        self, strategy: Strategy, *, frames: int = 1, in_flight: int = 1, interval_s: float | None = None
    ) -> Timeline:
        """What happens under a strategy, by replay; see `distredge.sim.replay.Replay.run`.

        Raises:
            StrategyError: the strategy does not fit the problem.
        """
        plan = self.compile(strategy)
        seconds = task_seconds(self.problem.graph, plan, self.times)
        return replay(
            plan, seconds, self.problem.network, frames=frames, in_flight=in_flight, interval_s=interval_s
        )

    def latency_s(self, strategy: Strategy) -> float:
        """Seconds from the submission of one frame to its answer, nothing else in flight.

        Raises:
            StrategyError: the strategy does not fit the problem.
        """
        check_strategy(self.problem.graph, strategy, len(self.problem.devices))
        tail = -1 if strategy.tail_device is None else strategy.tail_device
        bounds = np.array([split.bounds for split in strategy.splits], dtype=np.int64)
        scheme = self.on_lanes(strategy.lanes).scheme(strategy.scheme)
        return float(scheme.latencies_s(bounds[None], tail)[0])

    def images_per_second(self, strategy: Strategy, in_flight: int = 8) -> float:
        """Frames answered per second, in the steady state, with so many always in flight; by replay.

        Raises:
            StrategyError: the strategy does not fit the problem.
        """
        return self.timeline(strategy, frames=4 * in_flight + 8, in_flight=in_flight).images_per_second

    def scheme(self, scheme: PartitionScheme) -> SchemePricer:
        """An evaluator for many split decisions of one scheme.

        Raises:
            StrategyError: the scheme does not fit the graph.
        """
        return SchemePricer(self, scheme)

    def memory_bytes(self, strategy: Strategy) -> Floats:
        """Bytes that each device needs, an estimate: see `distredge.sim.memory`; of all ways together.

        Raises:
            StrategyError: the strategy does not fit the problem.
        """
        check_strategy(self.problem.graph, strategy, len(self.problem.devices))
        first, *others = [self.memory.of(way) for way in strategy.ways]
        for other in others:
            first = first + other
        return first

    def compute_seconds(self, device: int, nodes: Sequence[int], share: float = 1.0) -> float:
        """Seconds for a share of the rows of each of these nodes, rounded up; whole ones run whole.

        With share 1 this is what a linear model scales by.
        """
        return sum(self._node_seconds(device, node, share) for node in nodes)

    def single_device_compute_s(self, device: int) -> float:
        """Seconds that a device computes when it runs the whole model alone, in one volume."""
        times = self.times[device]
        return sum(
            sum(float(times.tables[node][rows]) for node, rows in nodes)
            + times.fixed_s
            + times.s_per_byte * moved
            for nodes, moved in self._whole
        )

    @cached_property
    def _whole(self) -> list[tuple[list[tuple[int, int]], int]]:
        """The whole model on one device, in one volume: each task's nodes with their rows, and its bytes."""
        graph = self.problem.graph
        (volume,) = find_volumes(graph, PartitionScheme())
        plan = compile_plan(graph, Strategy(PartitionScheme(), (SplitDecision((0, volume.rows)),), 0), ["it"])
        moved = [plan.moved_bytes(task) for task in plan.tasks]
        return list(zip(plan_work(graph, plan), moved, strict=True))

    def _node_seconds(self, device: int, node: int, share: float) -> float:
        table = self.times[device].tables[node]
        return float(table[int(np.ceil(share * (len(table) - 1)))])

    def speeds(self, nodes: Sequence[int] | None = None) -> Floats:
        """Per device, one over the seconds for all rows of these nodes: of all that are split in the trunk,
        or in the head where there is no other."""
        if nodes is None:
            graph = self.problem.graph
            split = [i for i in range(len(graph.nodes)) if graph.is_split(i)]
            nodes = [i for i in split if i not in graph.head] or split
        seconds = [self.compute_seconds(device, nodes) for device in range(len(self.problem.devices))]
        return np.array([1.0 / max(each, 1e-12) for each in seconds])


class SchemePricer:
    """Prices split decisions of one partition scheme.

    Attributes:
        rows: reference rows of each volume.
    """

    def __init__(self, pricer: Pricer, scheme: PartitionScheme) -> None:
        graph = pricer.problem.graph
        self._pricer = pricer
        self.scheme = scheme
        self._ends = np.array([*cut_positions(graph, scheme), len(graph.nodes)], dtype=np.int64)
        self._devices = len(pricer.problem.devices)
        self._parts = len(pricer.lanes) or self._devices

    @cached_property
    def volumes(self) -> tuple[Volume, ...]:
        """The layer-volumes of the scheme."""
        return find_volumes(self._pricer.problem.graph, self.scheme)

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """Of each volume's reference tensor."""
        return tuple(volume.rows for volume in self.volumes)

    def strategy(self, bounds: Ints, tail_device: int = -1) -> Strategy:
        """One row of a batch as a Strategy: bounds of shape (volumes, parts + 1)."""
        splits = tuple(SplitDecision(tuple(int(b) for b in volume)) for volume in bounds)
        tail = None if tail_device < 0 else int(tail_device)
        return Strategy(self.scheme, splits, tail, self._pricer.lanes)

    def latencies_s(self, bounds: Ints, tail_device: int | Ints = -1) -> Floats:
        """Latency of many strategies.

        The first call on a machine compiles the evaluator, which takes some 15 seconds.

        Args:
            bounds: rows of each volume's reference, of shape (batch, volumes, parts + 1): from 0 to
                `rows`, never falling.
            tail_device: who runs the tail, for all or for each; -1: the device with most rows in the last
                volume.

        Returns:
            Seconds, of shape (batch,).

        Raises:
            StrategyError: bounds do not fit the scheme.
        """
        return self._price(bounds, tail_device, NO_TIMES)

    def volume_times(self, bounds: Ints, tail_device: int | Ints = -1) -> tuple[Floats, Floats]:
        """Latencies as above, and when each device has finished its share of each volume.

        Returns:
            Seconds, of shapes (batch,) and (batch, volumes, devices). A device without a share of a volume
            has its time of the volume before.

        Raises:
            StrategyError: bounds do not fit the scheme.
        """
        ready = np.zeros((len(bounds), len(self._ends), self._devices))
        return self._price(bounds, tail_device, ready), ready

    def _price(self, bounds: Ints, tail_device: int | Ints, ready: Floats) -> Floats:
        bounds = np.ascontiguousarray(bounds, dtype=np.int64)
        tails = np.array(np.broadcast_to(np.asarray(tail_device, dtype=np.int64), (len(bounds),)))
        shape = (len(self._ends), self._parts + 1)
        if bounds.shape[1:] != shape:
            raise StrategyError(
                f"bounds must have the shape (batch, {shape[0]}, {shape[1]}), not {bounds.shape}"
            )
        if len(tails) and tails.max() >= self._devices:
            raise StrategyError(f"tail device {tails.max()} is not one of {self._devices} devices")
        latencies = np.full(len(bounds), np.inf)
        if self._pricer.packed is not None:
            self._price_fast(bounds, tails, latencies, ready)
        for at in np.flatnonzero(np.isinf(latencies)):
            timeline = self._pricer.timeline(self.strategy(bounds[at], int(tails[at])))
            latencies[at] = timeline.latency_s
            if len(ready):
                _fill_ready(timeline, ready[at])
        return latencies

    def _price_fast(self, bounds: Ints, tails: Ints, latencies: Floats, ready: Floats) -> None:
        packed = self._pricer.packed
        assert packed is not None
        count = len(self._ends)
        program, work = self._pricer.room(count)
        build_program(packed, self._ends, count, program)
        rows = np.ascontiguousarray(program.volume["rows"][:count])
        wrong = check_bounds(bounds, rows)
        if wrong >= 0:
            raise StrategyError(
                f"bounds {bounds[wrong].tolist()} of strategy {wrong} do not rise from 0 to {rows.tolist()}"
            )
        price_batch(packed, program, count, work, bounds, tails, latencies, ready)

    def memory_bytes(self, bounds: Ints, tail_device: int | Ints = -1) -> Floats:
        """Bytes that each device needs, of shape (batch, devices)."""
        tails = np.broadcast_to(np.asarray(tail_device, dtype=np.int64), (len(bounds),))
        lanes = self._pricer.lanes or range(self._devices)
        ends = np.searchsorted(lanes, np.arange(self._devices + 1))
        return self._pricer.memory.of_batch(self.volumes, np.asarray(bounds)[:, :, ends], tails)


def _fill_ready(timeline: Timeline, ready: Floats) -> None:
    for span in timeline.tasks:
        volume = timeline.plan.tasks[span.task].volume
        if volume < len(ready):
            ready[volume, span.device] = max(ready[volume, span.device], span.end_s)
    np.maximum.accumulate(ready, axis=0, out=ready)
