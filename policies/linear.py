"""Work and traffic of every possible layer-volume under the linear model that published baselines plan by.

Linear: seconds in proportion to multiply-accumulates, and to bytes. The simulator's tables are not linear;
what a policy decides by this model is priced by the simulator afterwards, like everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distredge.cluster.segment import node_rows
from distredge.graph.model import Graph
from distredge.graph.rows import Rows
from distredge.plan.execution import REQUESTER
from distredge.plan.policy import PlanningProblem
from policies.parts import fractions_of, pricer_for

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
_NONE = np.iinfo(np.int64).max // 4


@dataclass(frozen=True)
class VolumesTo:
    """All volumes with one common end. The first axis counts the places where a volume may start.

    Attributes:
        end: which place they end at: 1 to `len(cuts) + 1`.
        work: multiply-accumulates, of shape (end, splits, devices).
        received: bytes that come from other devices or the requester, likewise.
    """

    end: int
    work: Array
    received: Array


@dataclass(frozen=True)
class _Input:
    """How one rowed input of a node depends on the rows made: first by start, last by stop; or the same."""

    tensor: int
    first: Ints
    last: Ints
    same: bool


@dataclass(frozen=True)
class _Step:
    """A node of the body, as the sweep walks over it."""

    outputs: tuple[tuple[int, int], ...]  # tensor, and the last node that reads it
    reduced: int
    macs_per_row: float
    inputs: tuple[_Input, ...]


class LinearModel:
    """The volumes between any two of some cuts of one graph's trunk.

    Args:
        graph: the model.
        cuts: where it may be cut, in topological order.
    """

    def __init__(self, graph: Graph, cuts: Sequence[str]) -> None:
        self.graph = graph
        self.cuts = tuple(cuts)
        body = graph.trunk
        self._places = [-1, *(graph.producer[cut] for cut in cuts), body[-1] if body else -1]
        self.names = [name for name, t in graph.tensors.items() if t.row_axis is not None and not t.constant]
        self._index = {name: i for i, name in enumerate(self.names)}
        self._nodes = body

    @cached_property
    def steps(self) -> dict[int, _Step]:
        """What each node costs per row, by node."""
        return {i: self._step(i) for i in self._nodes}

    def _step(self, index: int) -> _Step:
        node = self.graph.nodes[index]
        wanted = self.graph.outputs
        outputs = tuple(
            (self._index[n], _NONE if n in wanted else max(self.graph.consumers.get(n, (-1,))))
            for n in node.outputs
            if n in self._index
        )
        source = self.graph.tensors[next(filter(None, node.outputs))].partial_of
        rows = node_rows(self.graph, index)
        inputs = []
        for position, name in enumerate(node.inputs):
            if name not in self._index or self.graph.tensors[name].partial_of is not None:
                continue
            height = self.graph.tensors[name].rows
            first, last = np.zeros(rows + 1, np.int64), np.full(rows + 1, height)
            if node.rule.axes[position] is not None:
                for row in range(rows):
                    need = node.rule.needs(Rows(row, row + 1))[position]
                    if need is not None:
                        first[row], last[row + 1] = need.start, need.stop
                first[rows] = height
                last[0] = 0
                first, last = np.minimum.accumulate(first[::-1])[::-1], np.maximum.accumulate(last)
            same = bool((first[:-1] == range(rows)).all() and (last == range(rows + 1)).all())
            inputs.append(_Input(self._index[name], first, last, same))
        return _Step(
            outputs,
            self._index.get(source, -1) if source else -1,
            node.macs / rows if rows else 0.0,
            tuple(inputs),
        )

    def sweep(self, fractions: Array) -> Iterator[VolumesTo]:
        """Work and traffic of every volume between two cuts, when every tensor is cut at the same fractions.

        Args:
            fractions: of shape (splits, devices + 1), rising from 0 to 1.
        """
        ends = len(self._places) - 1
        stops = np.array(self._places[1:])[:, None, None]
        shape = (len(self._places), ends, len(fractions), fractions.shape[1] - 1)
        work, received = np.zeros(shape), np.zeros(shape)
        walk = _Walk(self, fractions, stops)
        place = ends - 1
        for i in reversed(self._nodes):
            while place >= 0 and i <= self._places[place]:
                work[place], received[place] = walk.work, walk.received()
                place -= 1
            walk.step(i)
        while place >= 0:
            work[place], received[place] = walk.work, walk.received()
            place -= 1
        for end in range(1, ends + 1):
            yield VolumesTo(end, work[:end, end - 1], received[:end, end - 1])

    def by_volume(self, fractions: Array) -> tuple[Array, Array]:
        """Work and traffic of the volumes that all of the cuts make, of shape (volumes, splits, devices).

        Args:
            fractions: as for `sweep`.
        """
        shape = (len(self._places) - 1, len(fractions), fractions.shape[1] - 1)
        work, received = np.zeros(shape), np.zeros(shape)
        place = len(self._places) - 2
        walk = _Walk(self, fractions, np.array(self._places[-1:])[:, None, None])
        for i in reversed(self._nodes):
            while place >= 0 and i <= self._places[place]:
                work[place], received[place] = walk.work[0], walk.received()[0]
                walk.restart(self._places[place])
                place -= 1
            walk.step(i)
        while place >= 0:
            work[place], received[place] = walk.work[0], walk.received()[0]
            walk.restart(self._places[place])
            place -= 1
        return work, received


class _Walk:
    """Goes backwards over the nodes, for several ends of a volume at once.

    Arrays have the shape (ends, splits, devices); a range of rows that is not wanted is (_NONE, -_NONE).
    """

    def __init__(self, model: LinearModel, fractions: Array, stops: Ints) -> None:
        self.model = model
        heights = np.array([model.graph.tensors[name].rows for name in model.names])
        bounds = np.floor(fractions[None] * heights[:, None, None] + 0.5).astype(np.int64)
        self.low, self.high = bounds[:, None, :, :-1], bounds[:, None, :, 1:]
        self.shape = (len(stops), len(fractions), fractions.shape[1] - 1)
        self.restart(stops)

    def restart(self, stops: Ints | int) -> None:
        """Begins anew behind these nodes."""
        self.stops = np.asarray(stops)
        self.work = np.zeros(self.shape)
        self.start: dict[int, Ints] = {}
        self.finish: dict[int, Ints] = {}

    def step(self, i: int) -> None:
        """One node before the last."""
        step = self.model.steps[i]
        begin, end = np.full(self.shape, _NONE), np.full(self.shape, -_NONE)
        for out, last_read in step.outputs:
            owned = (self.stops >= i) & (self.stops < last_read) & (self.high[out] > self.low[out])
            a, b = np.where(owned, self.low[out], _NONE), np.where(owned, self.high[out], -_NONE)
            if out in self.start:
                a, b = np.minimum(a, self.start.pop(out)), np.maximum(b, self.finish.pop(out))
            begin, end = np.minimum(begin, a), np.maximum(end, b)
        if step.reduced >= 0:
            inside = self.stops >= i
            begin = np.where(inside, self.low[step.reduced], _NONE)
            end = np.where(inside, self.high[step.reduced], -_NONE)
        some = end > begin
        if not some.any():
            return
        self.work = self.work + step.macs_per_row * np.where(some, end - begin, 0)
        for item in step.inputs:
            a, b = begin, end
            if not item.same:
                limit = len(item.first) - 1
                a = np.where(some, item.first[np.clip(begin, 0, limit)], _NONE)
                b = np.where(some, item.last[np.clip(end, 0, limit)], -_NONE)
            if item.tensor in self.start:
                a = np.minimum(a, self.start[item.tensor])
                b = np.maximum(b, self.finish[item.tensor])
            self.start[item.tensor], self.finish[item.tensor] = a, b

    def received(self) -> Array:
        """Bytes of what is read from before the last node and not owned by the reader."""
        total = np.zeros(self.shape)
        for tensor, begin in self.start.items():
            name = self.model.names[tensor]
            end = self.finish[tensor]
            size = np.maximum(0, end - begin)
            if name not in self.model.graph.inputs:
                common = np.minimum(end, self.high[tensor]) - np.maximum(begin, self.low[tensor])
                size = size - np.maximum(0, common)
            total += size * self.model.graph.tensors[name].row_bytes
        return total


_KEPT = 8
_models: list[LinearModel] = []


def linear_model(graph: Graph, cuts: Sequence[str]) -> LinearModel:
    """A model of these cuts; the last few are kept, since their tables take milliseconds to make."""
    for model in _models:
        if model.graph is graph and model.cuts == tuple(cuts):
            return model
    _models.insert(0, LinearModel(graph, cuts))
    del _models[_KEPT:]
    return _models[0]


def seconds_per_mac(problem: PlanningProblem) -> Array:
    """Per device, its seconds for the whole trunk on the multiply-accumulates of the whole trunk."""
    return np.asarray(1.0 / (max(1, trunk_macs(problem.graph)) * pricer_for(problem).speeds()))


def trunk_macs(graph: Graph) -> int:
    """Multiply-accumulates of all that is split by rows of maps."""
    return sum(graph.nodes[i].macs for i in graph.trunk if graph.is_split(i))


def seconds_per_byte(problem: PlanningProblem, used: NDArray[np.bool_]) -> tuple[Array, Array]:
    """How long a byte takes to each device from the requester, and from the slowest other device in use.

    Args:
        problem: has the network.
        used: by device, along the last axis.
    """
    rates = problem.network.seconds_per_byte
    count = len(problem.devices)
    between = np.where(np.eye(count, dtype=bool), 0.0, rates[:count, :count])
    return rates[REQUESTER, :count], np.asarray((used[..., :, None] * between).max(axis=-2))


def alone_seconds(problem: PlanningProblem) -> Array:
    """Seconds of each device for the whole trunk by itself, its input included, by the linear model."""
    graph = problem.graph
    sent = sum(graph.tensors[name].total_bytes for name in graph.inputs)
    forth, _ = seconds_per_byte(problem, np.ones(len(problem.devices), dtype=bool))
    return np.asarray(trunk_macs(graph) * seconds_per_mac(problem) + sent * forth)


def fused_cuts(problem: PlanningProblem, model: LinearModel, shares: Array) -> list[tuple[str, ...]]:
    """For each of some shares the cuts that are fastest under the linear model, where a volume takes as long
    as its slowest device needs to receive and to compute.

    Args:
        problem: what is asked.
        model: of its graph, with candidate cuts.
        shares: of shape (splits, devices).
    """
    per_mac = seconds_per_mac(problem)
    from_requester, from_others = seconds_per_byte(problem, shares > 0)

    def seconds(volumes: VolumesTo) -> Array:
        first = np.arange(volumes.end)[:, None, None] == 0
        each = volumes.work * per_mac + volumes.received * np.where(first, from_requester, from_others)
        return np.asarray(each.max(axis=2))

    return cheapest_cuts(model, fractions_of(shares), seconds)


def cheapest_cuts(
    model: LinearModel, fractions: Array, cost: Callable[[VolumesTo], Array]
) -> list[tuple[str, ...]]:
    """The cuts whose volumes cost least in all, by dynamic programming: `r(n) = min_i (p(i, n) + r(i))`.

    Args:
        model: with the candidate cuts.
        fractions: how each tensor is split, as `LinearModel.sweep` takes them.
        cost: of all volumes with one end, of shape (starts, splits).

    Returns:
        Cuts for each split.
    """
    total = np.zeros((len(model.cuts) + 2, len(fractions)))
    before = np.zeros(total.shape, dtype=np.int64)
    for volumes in model.sweep(fractions):
        sums = cost(volumes) + total[: volumes.end]
        before[volumes.end] = sums.argmin(axis=0)
        total[volumes.end] = sums.min(axis=0)
    found = []
    for split in range(len(fractions)):
        places, at = [], int(before[-1, split])
        while at > 0:
            places.append(at)
            at = int(before[at, split])
        found.append(tuple(model.cuts[place - 1] for place in reversed(places)))
    return found
