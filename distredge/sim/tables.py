"""Seconds of each node by the rows that it computes, and of each task by its nodes and its bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from distredge.cluster.segment import ComputeTimes, Segment, node_rows, segment_rows
from distredge.errors import ProfileError
from distredge.graph.model import Graph
from distredge.graph.rows import Rows
from distredge.plan.compile import biggest_part
from distredge.plan.demand import Demand, Ownership, find_demand, find_stages
from distredge.plan.execution import ExecutionPlan
from distredge.plan.strategy import SplitDecision, run_order
from distredge.plan.volumes import Volume, find_volumes
from distredge.plan.wire import ROUNDED

Table = NDArray[np.float64]


@dataclass(frozen=True)
class NodeTimes:
    """What one device needs for each node of one model.

    Attributes:
        tables: per node, seconds for 0, 1, ... rows of the node (of the tensor that it reduces, for a
            partial reduction); a node that runs whole has one row.
        fixed_s, s_per_byte: what a task costs beside its nodes.
        coding: seconds per byte that rows take to be rounded and to be restored, by their coding.
    """

    tables: tuple[Table, ...]
    fixed_s: float = 0.0
    s_per_byte: float = 0.0
    coding: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def coding_s(self, coding: str) -> tuple[float, float]:
        """Seconds per byte to round it and to restore it; 0 where nobody knows."""
        return self.coding.get(coding, (0.0, 0.0))


def node_times(graph: Graph, times: ComputeTimes) -> NodeTimes:
    """Tables by node out of a device's times.

    The time of a segment measured as a whole is shared out over its nodes by multiply-accumulates, or by
    output elements where it has none; rows of a node stand for the same share of the segment's rows.

    Raises:
        ProfileError: a node with work in it was not measured.
    """
    heights = [node_rows(graph, i) for i in range(len(graph.nodes))]
    tables: list[Table] = [np.zeros(max(1, height) + 1) for height in heights]
    if not times.segments:
        for i, height in enumerate(heights):
            tables[i] = np.ascontiguousarray(times.table((i,), max(1, height)), dtype=np.float64)
    else:
        seen: set[int] = set()
        for segment in times.segments:
            seen.update(segment)
            for i, table in _share_out(graph, times, segment, heights):
                tables[i] = table
        missing = [n.name for i, n in enumerate(graph.nodes) if i not in seen and n.macs]
        if missing:
            raise ProfileError(
                f"the profile of {times.device} lacks {len(missing)} nodes of {graph.name}, such as "
                f"{missing[0]}; run `distredge profile` again",
                device=times.device,
            )
    costs = times.boundary_fixed_s, times.boundary_s_per_byte, times.coding_s_per_byte
    return NodeTimes(tuple(tables), *costs)


def _share_out(
    graph: Graph, times: ComputeTimes, segment: Segment, heights: Sequence[int]
) -> list[tuple[int, Table]]:
    rows = segment_rows(graph, segment)
    whole = times.table(segment, rows)
    weights = [float(graph.nodes[i].macs) for i in segment]
    if not any(weights):
        weights = [float(_elements(graph, i)) for i in segment]
    total = sum(weights)
    found = []
    for i, weight in zip(segment, weights, strict=True):
        if heights[i]:
            at = np.arange(heights[i] + 1) * (rows / heights[i])
            table = np.interp(at, np.arange(rows + 1), whole)
        else:
            table = np.array([0.0, whole[-1]])
        found.append((i, table * (weight / total)))
    return found


def _elements(graph: Graph, node: int) -> int:
    sizes = (prod(max(1, d) for d in graph.tensors[out].shape) for out in graph.nodes[node].outputs if out)
    return max(1, sum(sizes))


def plan_work(graph: Graph, plan: ExecutionPlan) -> list[list[tuple[int, int]]]:
    """Per task of the plan, its nodes and the rows that each computes (1 for a node that runs whole)."""
    volumes = find_volumes(graph, plan.strategy.scheme)
    order = run_order(plan.strategy.part_devices)
    heights: dict[str, int] = {}

    def height(name: str) -> int:
        return heights.get(name, graph.tensors[name].rows)

    work = []
    for volume, split in zip(volumes, plan.strategy.splits, strict=True):
        own = Ownership(graph, split)
        for i in volume.nodes:
            heights.update((name, own.height(name)) for name in graph.nodes[i].outputs if name)
        rowed = [n for n in (*volume.outputs, *volume.syncs) if graph.tensors[n].row_axis is not None]
        lead = -1 if any(own.height(name) for name in rowed) else biggest_part(split)
        demands = [find_demand(graph, volume, own, height, p, p == lead) for p in range(split.parts)]
        stages = find_stages(graph, volume)
        for stage in range(max(stages.values(), default=-1) + 1):
            for part in order:
                running = [i for i in volume.nodes if stages[i] == stage and i in demands[part].needs]
                if running:
                    work.append([(i, _rows(graph, i, demands[part], own, part)) for i in running])
    nodes = tuple(sorted(graph.tail))
    if len(plan.tasks) > len(work):
        own = Ownership(graph, SplitDecision((0, 1)))
        outputs = tuple(n for n in graph.outputs if graph.producer.get(n, -1) in graph.tail)
        demand = find_demand(graph, Volume(nodes, (), outputs, None, 1, ()), own, height, 0, lead=True)
        work.append([(i, _rows(graph, i, demand, own, 0)) for i in nodes if i in demand.needs])
    return work


def _rows(graph: Graph, node: int, demand: Demand, own: Ownership, part: int) -> int:
    first = next(filter(None, graph.nodes[node].outputs))
    source = graph.tensors[first].partial_of
    rows: Rows = own.rows(source, part) if source is not None else demand.makes[first]
    return rows.size if node_rows(graph, node) else 1


def task_seconds(graph: Graph, plan: ExecutionPlan, times: Sequence[NodeTimes]) -> list[float]:
    """Seconds of each task of a plan.

    Args:
        graph: the model.
        plan: compiled from it.
        times: per device.
    """
    seconds = []
    for task, nodes in zip(plan.tasks, plan_work(graph, plan), strict=True):
        device = times[task.device]
        work = sum(float(device.tables[i][rows]) for i, rows in nodes)
        seconds.append(work + device.fixed_s + device.s_per_byte * plan.moved_bytes(task))
    _add_coding(plan, times, seconds)
    return seconds


def _add_coding(plan: ExecutionPlan, times: Sequence[NodeTimes], seconds: list[float]) -> None:
    """Rows are rounded by the task that makes them, and restored by the first that reads them."""
    rounded = {t.id: t for t in plan.transfers if t.coding in ROUNDED}
    for transfer in rounded.values():
        if transfer.task >= 0:
            there, _ = times[transfer.source].coding_s(transfer.coding)
            seconds[transfer.task] += there * plan.transfer_bytes(transfer)
    for task in plan.tasks:
        for piece in (piece for item in task.inputs for piece in item.pieces):
            if piece.transfer in rounded:
                transfer = rounded.pop(piece.transfer)
                _, back = times[task.device].coding_s(transfer.coding)
                seconds[task.id] += back * plan.transfer_bytes(transfer)
