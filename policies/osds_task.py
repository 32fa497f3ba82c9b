"""What one episode of OSDS decides: a problem under one partition scheme, and the best split known for it."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np
from numpy.typing import NDArray

from distredge.errors import PolicyError
from distredge.graph.model import Graph
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import Volume, cut_positions
from policies.memory import fitted
from policies.parts import memory_limits, pricer_for

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class SplitTask:
    """One problem, one scheme.

    Attributes:
        problem: what is asked.
        rows: reference rows of each volume.
        in_head: whether a volume lies in the head, which the paper's form leaves on one device.
        bounds: of the incumbent, from which actions of the improved form start, of shape
            (volumes, devices + 1).
        cost_s: of the incumbent: its latency, and a little of the time at which each device is done [O]. It
            tells apart the many splits of one latency, where a device that nobody waits for is done sooner.
        best: bounds of the lowest latency met.
        latency_s: of `best`; infinity before anything that fits into memory was met.
        tail: device of the tail, or -1.
        unit_s: latency of the first incumbent: what latencies are measured by in states and rewards.
        features: H, C, F, S of each volume's last layer, each over the model's largest [R: which four].
        evaluations: strategies priced so far.
    """

    def __init__(self, problem: PlanningProblem, start: Strategy) -> None:
        self.problem = problem
        self.scheme = start.scheme
        pricer = pricer_for(problem)
        self._pricer = pricer.scheme(start.scheme)
        self._limits = memory_limits(problem)
        self._limited = not np.isinf(self._limits).all()
        self.rows = np.array(self._pricer.rows, dtype=np.int64)
        self.in_head = np.array([problem.graph.head.issuperset(v.nodes) for v in self._pricer.volumes])
        self.features = _features(problem.graph, self._pricer.volumes)
        self.tail = -1 if start.tail_device is None else start.tail_device
        self.bounds = np.array([split.bounds for split in start.splits], dtype=np.int64)
        self.evaluations = 0
        latencies, ready = self.price(self.bounds[None])
        self.best = self.bounds
        self.latency_s = float(latencies[0])
        self.cost_s = float(costs_s(latencies, ready)[0])
        self.unit_s = self.latency_s if np.isfinite(self.latency_s) else 1.0

    @property
    def volumes(self) -> int:
        """How many decisions an episode has."""
        return len(self.rows)

    def price(self, bounds: Ints) -> tuple[Floats, Floats]:
        """Latencies of splits, infinity for those that do not fit into memory, and when each device has done
        its share of each volume: shapes (batch,) and (batch, volumes, devices)."""
        latencies, ready = self._pricer.volume_times(bounds, self.tail)
        self.evaluations += len(bounds)
        if self._limited:
            used = self._pricer.memory_bytes(bounds, self.tail)
            latencies = np.where((used <= self._limits).all(axis=1), latencies, inf)
        return latencies, ready

    def offer(self, bounds: Ints, latencies: Floats, costs: Floats, worse_s: float = 0.0) -> None:
        """Keeps the best of these by latency; that of least cost becomes the incumbent, if it costs at most
        `worse_s` more."""
        at = int(np.argmin(latencies))
        if latencies[at] < self.latency_s:
            self.best, self.latency_s = bounds[at].copy(), float(latencies[at])
        at = int(np.argmin(costs))
        if costs[at] <= self.cost_s + worse_s:
            self.bounds, self.cost_s = bounds[at].copy(), float(costs[at])

    def forget(self) -> None:
        """Whatever is met next is the best."""
        self.latency_s = self.cost_s = inf

    def strategy(self) -> Strategy:
        """The best met."""
        return self._pricer.strategy(self.best, self.tail)


SMOOTH = 0.1
"""Weight in a cost of the devices' average time [O]."""


def costs_s(latencies: Floats, ready: Floats) -> Floats:
    """Latency and a tenth of the time at which a device is done with its last part, on average."""
    found: Floats = latencies + SMOOTH * ready[:, -1].mean(axis=1)
    return found


def _features(graph: Graph, volumes: Sequence[Volume]) -> Floats:
    """H, C, F, S of each volume's last layer that computes, over the largest of the graph."""
    layers = [_configuration(graph, i) for i in range(len(graph.nodes))]
    largest = np.maximum(1.0, np.max(layers, axis=0))
    found = np.zeros((len(volumes), 4))
    for at, volume in enumerate(volumes):
        working = [i for i in volume.nodes if graph.nodes[i].macs] or list(volume.nodes)
        if working:
            found[at] = layers[working[-1]] / largest
    return found


def _configuration(graph: Graph, node: int) -> Floats:
    """Rows and channels that a node makes, rows under its window, and its stride."""
    spec = graph.nodes[node]
    out = graph.tensors[next(filter(None, spec.outputs))]
    channels = out.shape[1] if len(out.shape) > 1 else 1
    extent, stride = getattr(spec.rule, "extent", 1), getattr(spec.rule, "stride", 1)
    return np.array([out.rows, channels, extent, stride], dtype=np.float64)


def projected(problem: PlanningProblem, strategy: Strategy, scheme: PartitionScheme) -> Strategy:
    """A strategy's rows under another scheme, made to fit into memory: each volume is cut where the strategy
    cuts the volume that holds its end.

    Raises:
        PolicyError: it cannot be.
    """
    graph = problem.graph
    last = len(graph.nodes)
    ends = [*cut_positions(graph, strategy.scheme), last]
    volumes = pricer_for(problem).scheme(scheme).volumes
    splits: list[SplitDecision] = []
    for end, volume in zip([*cut_positions(graph, scheme), last], volumes, strict=True):
        at = next(at for at, known in enumerate(ends) if known >= end)
        splits.append(strategy.splits[at].scaled(volume.rows))
    return fitted(problem, Strategy(scheme, tuple(splits), strategy.tail_device))


def tasks_for(
    problem: PlanningProblem, schemes: Sequence[PartitionScheme], strategies: Sequence[Strategy]
) -> list[SplitTask]:
    """One task per scheme, its incumbent the best of these strategies projected onto it; best first.

    Schemes under which nothing fits into memory are left out.
    """
    found = []
    for scheme in dict.fromkeys(schemes):
        best: SplitTask | None = None
        for strategy in strategies:
            try:
                task = SplitTask(problem, projected(problem, strategy, scheme))
            except PolicyError:
                continue
            if best is None or task.latency_s < best.latency_s:
                best = task
        if best is not None:
            found.append(best)
    return sorted(found, key=lambda task: task.latency_s)
