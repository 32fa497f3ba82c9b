"""What most policies need: strategies out of shares, a problem's simulator, and a choice by its prices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from distredge.errors import PolicyError
from distredge.graph.model import Graph
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.sim.pricing import Pricer

_KEPT = 4
_pricers: list[tuple[PlanningProblem, Pricer]] = []


def pricer_for(problem: PlanningProblem) -> Pricer:
    """The simulator's evaluator, made once per graph, devices and network: its tables take time to make."""
    for at, (known, pricer) in enumerate(_pricers):
        if all(getattr(known, part) is getattr(problem, part) for part in ("graph", "devices", "network")):
            _pricers.insert(0, _pricers.pop(at))
            return pricer
    same = [p for other, p in _pricers if other.graph is problem.graph and other.devices is problem.devices]
    pricer = same[0].on(problem) if same else Pricer(problem)
    _pricers.insert(0, (problem, pricer))
    del _pricers[_KEPT:]
    return pricer


def single_device(problem: PlanningProblem, device: int) -> Strategy:
    """Everything on one device, in one volume."""
    (volume,) = find_volumes(problem.graph, PartitionScheme())
    bounds = (0,) * (device + 1) + (volume.rows,) * (len(problem.devices) - device)
    return Strategy(PartitionScheme(), (SplitDecision(bounds),), device)


def shared_out(graph: Graph, cuts: Iterable[str], shares: Sequence[float] | NDArray[np.float64]) -> Strategy:
    """The same shares of the rows of every volume."""
    scheme = PartitionScheme(tuple(cuts))
    weights = [float(share) for share in shares]
    splits = tuple(SplitDecision.from_shares(volume.rows, weights) for volume in find_volumes(graph, scheme))
    return Strategy(scheme, splits)


def fractions_of(shares: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Where shares end, as fractions of the height: `devices + 1` numbers, 0 to 1, along the last axis."""
    parts = np.asarray(shares, dtype=np.float64)
    ends = np.cumsum(parts, axis=-1)
    ends /= ends[..., -1:]
    return np.concatenate([np.zeros_like(ends[..., :1]), ends], axis=-1)


def with_best_tail(problem: PlanningProblem, strategy: Strategy) -> Strategy:
    """The strategy with its tail on the device that answers soonest; unchanged for a model without a tail."""
    if not problem.graph.tail:
        return strategy
    tails = range(len(problem.devices))
    return best_of(problem, [Strategy(strategy.scheme, strategy.splits, device) for device in tails])


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
