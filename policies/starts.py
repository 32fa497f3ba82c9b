"""Where a search starts: simple strategies for many subsets of the devices and a few partition schemes."""

from __future__ import annotations

from itertools import combinations, islice

import numpy as np
from numpy.typing import NDArray

from distredge.plan.crossing import head_cuts
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.sim.program import build_program
from policies.cuts import narrow_cuts, stage_cuts
from policies.linear import Array, alone_seconds, fused_cuts, linear_model
from policies.parts import pricer_for, single_device

_ALL_SUBSETS = 5
"""Up to so many devices, every subset of them is tried."""
_SIZES = (2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Of the subsets that are tried of more devices."""
_MOST_MOVES = 40
"""Pairs of devices between which rows are moved."""
_HEAD_MEMBERS = 8
"""Devices that share a head out at most: each sends its features to each other one."""
_KEPT = 4
_known: list[tuple[PlanningProblem, tuple[Strategy, ...]]] = []


def simple_strategies(problem: PlanningProblem) -> tuple[Strategy, ...]:
    """Each device alone; and for subsets of the devices equal and proportional rows of one volume, of one per
    stage, of one per layer and of every second layer.

    They do not depend on the links, and are kept: so there is no need to make them anew when a link changes.
    """
    for known, strategies in _known:
        if known.graph is problem.graph and known.devices is problem.devices:
            return strategies
    graph = problem.graph
    layers = narrow_cuts(graph)
    schemes = dict.fromkeys([(), stage_cuts(graph), layers[1::2], layers])
    found = [single_device(problem, device) for device in range(len(problem.devices))]
    speeds = pricer_for(problem).speeds()
    sharing = Sharing(problem)
    for shares in _shares(problem, np.argsort(-speeds, kind="stable")):
        for cuts in schemes:
            found.extend(sharing.strategies(cuts, shares))
    _known.insert(0, (problem, tuple(found)))
    del _known[_KEPT:]
    return _known[0][1]


def fused_strategies(problem: PlanningProblem) -> tuple[Strategy, ...]:
    """For subsets of the devices equal and proportional rows of the volumes that the linear model, which
    knows the links, finds fastest."""
    graph = problem.graph
    shares = _shares(problem, np.argsort(alone_seconds(problem), kind="stable"))
    if not shares:
        return ()
    cuts = fused_cuts(problem, linear_model(graph, narrow_cuts(graph)), np.array(shares))
    sharing = Sharing(problem)
    return tuple(
        found for at, each in zip(cuts, shares, strict=True) for found in sharing.strategies(at, each)
    )


def _heights(problem: PlanningProblem, cuts: tuple[str, ...]) -> list[int]:
    """Reference rows of the volumes between these cuts; compiled where that is possible, for it takes
    milliseconds otherwise."""
    graph, pricer = problem.graph, pricer_for(problem)
    if pricer.packed is None:
        return [volume.rows for volume in find_volumes(graph, PartitionScheme(cuts))]
    ends = np.array([*(graph.producer[cut] for cut in cuts), len(graph.nodes)], dtype=np.int64)
    program, _ = pricer.room(len(ends))
    build_program(pricer.packed, ends, len(ends), program)
    return [int(rows) for rows in program.volume["rows"][: len(ends)]]


class Sharing:
    """Shares become strategies, for schemes that come again and again."""

    def __init__(self, problem: PlanningProblem) -> None:
        graph = self.graph = problem.graph
        pricer = pricer_for(problem)
        self.problem = problem
        self.layers = head_cuts(graph)
        self.head_speeds = pricer.speeds(sorted(graph.head)) if self.layers else np.zeros(0)
        self.heights: dict[tuple[str, ...], list[int]] = {}

    def strategies(self, cuts: tuple[str, ...], shares: Array) -> list[Strategy]:
        """The trunk in these shares; the head on the member that is quickest there, and shared out by
        features, as quick as each member is there."""
        if not self.layers:
            return [self._strategy(cuts, shares, len(cuts) + 1, shares)]
        members = np.where(shares > 0, self.head_speeds, 0.0)
        members[np.argsort(-members, kind="stable")[_HEAD_MEMBERS:]] = 0.0
        quickest = (np.arange(len(shares)) == members.argmax()).astype(np.float64)
        return [
            self._strategy((*cuts, self.graph.head_cut), shares, len(cuts) + 1, quickest),
            self._strategy((*cuts, *self.layers), shares, len(cuts) + 1, members),
        ]

    def _strategy(self, cuts: tuple[str, ...], shares: Array, trunk: int, head: Array) -> Strategy:
        """Shares of the first volumes, so many, and of all behind them."""
        if cuts not in self.heights:
            self.heights[cuts] = _heights(self.problem, cuts)
        weights = [[float(share) for share in each] for each in (shares, head)]
        splits = (
            SplitDecision.from_shares(rows, weights[at >= trunk])
            for at, rows in enumerate(self.heights[cuts])
        )
        return Strategy(PartitionScheme(cuts), tuple(splits))


def rearranged(strategy: Strategy) -> tuple[Strategy, ...]:
    """The strategy with all rows of one device, or half of them, given to another, for each two devices."""
    strategy = strategy.merged
    devices = range(strategy.devices)
    sizes = np.array([[split.part(d).size for d in devices] for split in strategy.splits])
    busy = [d for d in devices if sizes[:, d].any()]
    found = []
    for giver, taker in islice(((a, b) for a in busy for b in devices if a != b), _MOST_MOVES):
        for share in (1.0, 0.5):
            moved = np.ceil(share * sizes[:, giver]).astype(int)
            changed = sizes.copy()
            changed[:, giver] -= moved
            changed[:, taker] += moved
            ends = np.cumsum(changed, axis=1)
            splits = tuple(SplitDecision((0, *(int(end) for end in row))) for row in ends)
            tail = taker if strategy.tail_device == giver and share == 1.0 else strategy.tail_device
            found.append(Strategy(strategy.scheme, splits, tail))
    return tuple(found)


def _shares(problem: PlanningProblem, order: NDArray[np.int64]) -> list[Array]:
    """Equal and proportional shares of subsets of two devices or more: of all, or of the first in order."""
    count = len(order)
    speeds = pricer_for(problem).speeds()
    if count <= _ALL_SUBSETS:
        chosen = [members for size in range(2, count + 1) for members in combinations(range(count), size)]
    else:
        chosen = [tuple(order[:size]) for size in (*(size for size in _SIZES if size < count), count)]
    found = []
    for members in chosen:
        mask = np.zeros(count)
        mask[list(members)] = 1.0
        found.append(mask)
        if np.ptp(speeds[list(members)]) > 0:
            found.append(mask * speeds)
    return found
