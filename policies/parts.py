"""What most policies need: strategies out of shares, a problem's simulator, and a choice by its prices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from distredge.errors import PolicyError
from distredge.graph.model import Graph
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.sim.pricing import Pricer
from policies.cuts import with_head_cut

_KEPT = 4
_pricers: list[tuple[PlanningProblem, Pricer]] = []


def pricer_for(problem: PlanningProblem) -> Pricer:
    """The simulator's evaluator, made once per graph, devices, network and wire: its tables take time."""
    for at, (known, pricer) in enumerate(_pricers):
        if known.network is problem.network and _is_same_model(known, problem):
            _pricers.insert(0, _pricers.pop(at))
            return pricer
    same = [pricer for other, pricer in _pricers if _is_same_model(other, problem)]
    pricer = same[0].on(problem) if same else Pricer(problem)
    _pricers.insert(0, (problem, pricer))
    del _pricers[_KEPT:]
    return pricer


def _is_same_model(one: PlanningProblem, other: PlanningProblem) -> bool:
    """Whether two problems differ in nothing but their links, budgets and seeds."""
    return one.graph is other.graph and one.devices is other.devices and one.wire == other.wire


def single_device(problem: PlanningProblem, device: int) -> Strategy:
    """Everything on one device, in one volume."""
    (volume,) = find_volumes(problem.graph, PartitionScheme())
    return Strategy(PartitionScheme(), (all_on(volume.rows, device, len(problem.devices)),), device)


def shared_out(graph: Graph, cuts: Iterable[str], shares: Sequence[float] | NDArray[np.float64]) -> Strategy:
    """The same shares of the rows of every volume of the trunk; the head on the device with the largest.

    Published ways split maps only.
    """
    scheme = PartitionScheme(with_head_cut(graph, cuts))
    weights = [float(share) for share in shares]
    splits = tuple(SplitDecision.from_shares(volume.rows, weights) for volume in find_volumes(graph, scheme))
    return with_head_on(graph, Strategy(scheme, splits), weights.index(max(weights)))


def all_on(rows: int, part: int, parts: int) -> SplitDecision:
    """Every row in one part: of so many devices, on one of them."""
    return SplitDecision((0,) * (part + 1) + (rows,) * (parts - part))


def with_head_on(graph: Graph, strategy: Strategy, device: int) -> Strategy:
    """The strategy with all volumes that lie in the head on one device."""
    if not graph.head:
        return strategy
    splits, owners = list(strategy.splits), strategy.part_devices
    for at, volume in enumerate(find_volumes(graph, strategy.scheme)):
        if graph.head.issuperset(volume.nodes):
            splits[at] = all_on(volume.rows, owners.index(device), len(owners))
    return replace(strategy, splits=tuple(splits))


def fractions_of(shares: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Where shares end, as fractions of the height: `devices + 1` numbers, 0 to 1, along the last axis."""
    parts = np.asarray(shares, dtype=np.float64)
    ends = np.cumsum(parts, axis=-1)
    ends /= ends[..., -1:]
    return np.concatenate([np.zeros_like(ends[..., :1]), ends], axis=-1)


def with_best_tail(problem: PlanningProblem, strategy: Strategy) -> Strategy:
    """The strategy with its tail, or its head and tail, on the device that answers soonest; unchanged for a
    model that has neither."""
    graph = problem.graph
    if not graph.tail and not graph.head:
        return strategy
    tails = [replace(strategy, tail_device=device) for device in range(len(problem.devices))]
    if not graph.head:
        return best_of(problem, tails)
    heads = [with_head_on(graph, each, device) for device, each in enumerate(tails)]
    return best_of(problem, dict.fromkeys([strategy, *heads, *(tails if graph.tail else ())]))


def best_of(problem: PlanningProblem, strategies: Iterable[Strategy]) -> Strategy:
    """The strategy of the lowest simulated latency; of those that fit in memory, the first of equals.

    Raises:
        PolicyError: there is none, or none fits.
    """
    pricer = pricer_for(problem)
    fitting = [strategy for strategy in strategies if fits(problem, strategy)]
    if not fitting:
        raise PolicyError("the model does not fit into the devices' memory; add devices or raise memory_mb")
    return min(fitting, key=pricer.latency_s)


def fits(problem: PlanningProblem, strategy: Strategy) -> bool:
    """Whether no device needs more memory than it has."""
    limits = memory_limits(problem)
    if np.isinf(limits).all():
        return True
    return bool((pricer_for(problem).memory_bytes(strategy) <= limits).all())


def memory_limits(problem: PlanningProblem) -> NDArray[np.float64]:
    """Bytes per device; infinity for no limit."""
    return np.array([device.memory_bytes for device in problem.devices])
