"""What a strategy costs, exactly and fast: the evaluator that policies search with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distredge.plan.compile import check_strategy, compile_plan
from distredge.plan.execution import ExecutionPlan
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.sim.memory import MemoryEstimate
from distredge.sim.replay import replay
from distredge.sim.tables import NodeTimes, node_times, task_seconds
from distredge.sim.timeline import Timeline

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Pricer:
    """Prices strategies for one problem.

    Attributes:
        problem: the problem.
        times: per device, seconds of every node by rows.
        memory: bytes that strategies need.
    """

    def __init__(self, problem: PlanningProblem) -> None:
        self.problem = problem
        shared: dict[int, NodeTimes] = {}
        for device in problem.devices:
            if id(device.times) not in shared:
                shared[id(device.times)] = node_times(problem.graph, device.times)
        self.times: tuple[NodeTimes, ...] = tuple(shared[id(d.times)] for d in problem.devices)
        self.memory = MemoryEstimate(problem.graph, len(problem.devices))

    def compile(self, strategy: Strategy) -> ExecutionPlan:
        """The plan of a strategy.

        Raises:
            StrategyError: it does not fit the problem.
        """
        names = [device.name for device in self.problem.devices]
        return compile_plan(self.problem.graph, strategy, names)

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
        return self.timeline(strategy).latency_s

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
        """Bytes that each device needs, an estimate: see `distredge.sim.memory`.

        Raises:
            StrategyError: the strategy does not fit the problem.
        """
        check_strategy(self.problem.graph, strategy, len(self.problem.devices))
        return self.memory.of(strategy)

    def compute_seconds(self, device: int, nodes: Sequence[int], share: float = 1.0) -> float:
        """Seconds for a share of the rows of each of these nodes, rounded up; whole ones run whole.

        With share 1 this is what a linear model scales by.
        """
        return sum(self._node_seconds(device, node, share) for node in nodes)

    def _node_seconds(self, device: int, node: int, share: float) -> float:
        table = self.times[device].tables[node]
        return float(table[int(np.ceil(share * (len(table) - 1)))])

    def speeds(self, nodes: Sequence[int] | None = None) -> Floats:
        """Per device, one over the seconds for all rows of these nodes (of all nodes that are split)."""
        if nodes is None:
            graph = self.problem.graph
            nodes = [i for i in range(len(graph.nodes)) if graph.is_split(i)]
        seconds = [self.compute_seconds(device, nodes) for device in range(len(self.problem.devices))]
        return np.array([1.0 / max(each, 1e-12) for each in seconds])


class SchemePricer:
    """Prices split decisions of one partition scheme.

    Attributes:
        rows: reference rows of each volume.
    """

    def __init__(self, pricer: Pricer, scheme: PartitionScheme) -> None:
        self._pricer = pricer
        self.scheme = scheme
        self.volumes = find_volumes(pricer.problem.graph, scheme)
        self.rows: tuple[int, ...] = tuple(volume.rows for volume in self.volumes)

    def strategy(self, bounds: Ints, tail_device: int = -1) -> Strategy:
        """One row of a batch as a Strategy: bounds of shape (volumes, devices + 1)."""
        splits = tuple(SplitDecision(tuple(int(b) for b in volume)) for volume in bounds)
        return Strategy(self.scheme, splits, None if tail_device < 0 else int(tail_device))

    def latencies_s(self, bounds: Ints, tail_device: int | Ints = -1) -> Floats:
        """Latency of many strategies.

        Args:
            bounds: rows of each volume's reference, of shape (batch, volumes, devices + 1): from 0 to
                `rows`, never falling.
            tail_device: who runs the tail, for all or for each; -1: the device with most rows in the last
                volume.

        Returns:
            Seconds, of shape (batch,).

        Raises:
            StrategyError: bounds do not fit the scheme.
        """
        tails = np.broadcast_to(np.asarray(tail_device, dtype=np.int64), (len(bounds),))
        pairs = zip(bounds, tails, strict=True)
        return np.array([self._pricer.latency_s(self.strategy(b, int(t))) for b, t in pairs])

    def memory_bytes(self, bounds: Ints, tail_device: int | Ints = -1) -> Floats:
        """Bytes that each device needs, of shape (batch, devices)."""
        tails = np.broadcast_to(np.asarray(tail_device, dtype=np.int64), (len(bounds),))
        pairs = zip(bounds, tails, strict=True)
        return np.array([self._pricer.memory.of(self.strategy(b, int(t))) for b, t in pairs])
