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
from policies.parts import pricer_for

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
    """How one rowed input of a node depends on the rows made: first row by start, last by stop."""

    tensor: int
    first: Ints
    last: Ints


@dataclass(frozen=True)
class _Step:
    """A node of the body, as the sweep walks over it."""

    outputs: tuple[int, ...]
    reduced: int
    macs_per_row: float
    inputs: tuple[_Input, ...]


class LinearModel:
    """The volumes between any two of some cuts of one graph.

    Args:
        graph: the model.
        cuts: where it may be cut, in topological order.
    """

    def __init__(self, graph: Graph, cuts: Sequence[str]) -> None:
        self.graph = graph
        self.cuts = tuple(cuts)
        body = [i for i in range(len(graph.nodes)) if i not in graph.tail]
        self._places = [-1, *(graph.producer[cut] for cut in cuts), body[-1] if body else -1]
        self._names = [name for name, t in graph.tensors.items() if t.row_axis is not None and not t.constant]
        self._index = {name: i for i, name in enumerate(self._names)}
        self._nodes = body

    @cached_property
    def _steps(self) -> dict[int, _Step]:
        return {i: self._step(i) for i in self._nodes}

    def _step(self, index: int) -> _Step:
        node = self.graph.nodes[index]
        outputs = tuple(self._index[name] for name in node.outputs if name in self._index)
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
                    first[row], last[row + 1] = need.start, need.stop
                first[rows] = height
                last[0] = 0
                first, last = np.minimum.accumulate(first[::-1])[::-1], np.maximum.accumulate(last)
            inputs.append(_Input(self._index[name], first, last))
        return _Step(
            outputs,
            self._index.get(source, -1) if source else -1,
            node.macs / rows if rows else 0.0,
            tuple(inputs),
        )

    def sweep(self, fractions: Array, longest: int | None = None) -> Iterator[VolumesTo]:
        """Work and traffic when every tensor is cut at the same fractions.

        Args:
            fractions: of shape (splits, devices + 1), rising from 0 to 1.
            longest: places that a volume may span; longer ones are left at 0. None for any number.
        """
        heights = np.array([self.graph.tensors[name].rows for name in self._names])
        bounds = np.floor(fractions[None] * heights[:, None, None] + 0.5).astype(np.int64)
        low, high = bounds[:, :, :-1], bounds[:, :, 1:]
        for end in range(1, len(self._places)):
            yield self._sweep_from(end, max(0, end - (longest or end)), low, high)

    def _sweep_from(self, end: int, earliest: int, low: Ints, high: Ints) -> VolumesTo:
        graph, stop = self.graph, self._places[end]
        splits, devices = low.shape[1:]
        work = np.zeros((end, splits, devices))
        received = np.zeros((end, splits, devices))
        done = np.zeros((splits, devices))
        start: dict[int, Ints] = {}
        finish: dict[int, Ints] = {}
        wanted = set(graph.outputs)
        place = end - 1
        for i in reversed(self._nodes):
            if i > stop:
                continue
            while place >= 0 and i <= self._places[place]:
                work[place], received[place] = done, self._received(start, finish, low, high)
                place -= 1
            if place < earliest:
                break
            step = self._steps[i]
            begin, finis = None, None
            for out in step.outputs:
                name = self._names[out]
                a, b = start.pop(out, None), finish.pop(out, None)
                if name in wanted or any(c > stop for c in graph.consumers.get(name, ())):
                    a, b = _hull(a, b, low[out], high[out])
                if a is not None and b is not None:
                    begin, finis = _hull(begin, finis, a, b)
            if step.reduced >= 0:
                begin, finis = low[step.reduced], high[step.reduced]
            if begin is None or finis is None:
                continue
            some = finis > begin
            done = done + step.macs_per_row * np.where(some, finis - begin, 0)
            for item in step.inputs:
                limit = len(item.first) - 1
                a = np.where(some, item.first[np.minimum(begin, limit)], _NONE)
                b = np.where(some, item.last[np.clip(finis, 0, limit)], -_NONE)
                start[item.tensor], finish[item.tensor] = _hull(
                    start.get(item.tensor), finish.get(item.tensor), a, b
                )
        while place >= earliest:
            work[place], received[place] = done, self._received(start, finish, low, high)
            place -= 1
        return VolumesTo(end, work, received)

    def _received(self, start: dict[int, Ints], finish: dict[int, Ints], low: Ints, high: Ints) -> Array:
        """Bytes of what is read from outside and not owned by the reader."""
        total = np.zeros(low.shape[1:])
        for tensor, begin in start.items():
            name = self._names[tensor]
            finis = finish[tensor]
            size = np.maximum(0, finis - begin)
            if name not in self.graph.inputs:
                common = np.minimum(finis, high[tensor]) - np.maximum(begin, low[tensor])
                size = size - np.maximum(0, common)
            total += size * self.graph.tensors[name].row_bytes
        return total


def _hull(a: Ints | None, b: Ints | None, low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """The hull of two arrays of ranges; an empty range adds nothing."""
    some = high > low
    low, high = np.where(some, low, _NONE), np.where(some, high, -_NONE)
    if a is None or b is None:
        return low, high
    return np.minimum(a, low), np.maximum(b, high)


def seconds_per_mac(problem: PlanningProblem) -> Array:
    """Per device, its seconds for the whole model on the multiply-accumulates of the whole model."""
    graph = problem.graph
    macs = sum(node.macs for i, node in enumerate(graph.nodes) if graph.is_split(i))
    return np.asarray(1.0 / (max(1, macs) * pricer_for(problem).speeds()))


def seconds_per_byte(problem: PlanningProblem, used: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Per device, how long a byte takes from the requester, and from the slowest other device in use."""
    rates = problem.network.seconds_per_byte
    devices = range(len(problem.devices))
    others = [max((rates[o, d] for o in devices if used[o] and o != d), default=0.0) for d in devices]
    return np.array([rates[REQUESTER, d] for d in devices]), np.array(others)


def alone_seconds(problem: PlanningProblem) -> Array:
    """Seconds of each device for the whole model by itself, its input included, by the linear model."""
    graph = problem.graph
    macs = sum(node.macs for i, node in enumerate(graph.nodes) if graph.is_split(i))
    sent = sum(graph.tensors[name].total_bytes for name in graph.inputs)
    forth, _ = seconds_per_byte(problem, np.ones(len(problem.devices), dtype=bool))
    return np.asarray(macs * seconds_per_mac(problem) + sent * forth)


def cheapest_cuts(
    model: LinearModel, fractions: Array, cost: Callable[[VolumesTo], Array]
) -> tuple[str, ...]:
    """The cuts whose volumes cost least in all, by dynamic programming: `r(n) = min_i (p(i, n) + r(i))`.

    Args:
        model: with the candidate cuts.
        fractions: how each tensor is split, as `LinearModel.sweep` takes them.
        cost: of all volumes with one end, by start.
    """
    total, before = [0.0], [0]
    for volumes in model.sweep(fractions):
        sums = np.asarray(cost(volumes)) + np.array(total)
        best = int(np.argmin(sums))
        total.append(float(sums[best]))
        before.append(best)
    places, at = [], before[-1]
    while at > 0:
        places.append(at)
        at = before[at]
    return tuple(model.cuts[place - 1] for place in reversed(places))
