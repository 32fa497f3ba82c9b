"""`mednn`: the proportional split of each layer, corrected greedily (MeDNN, Mao et al., ICCAD 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import Volume, find_volumes
from policies.cuts import layer_cuts, with_head_cut
from policies.linear import Array, LinearModel, linear_model, seconds_per_byte, seconds_per_mac
from policies.memory import fitted
from policies.parts import all_on, best_of, fractions_of, pricer_for, shared_out


@dataclass(frozen=True)
class MeDNN:
    """Every layer is a volume. From rows in proportion to speed, rows move from the device that finishes last
    to the one that finishes first, as long as the last one gets earlier [R].

    Finish times are those of a linear model: a fixed part, so much per row, and the rows that must be
    received. Where the definition leaves room, the better of two readings under the simulator: each layer
    corrected by itself with its own fixed part and slope, or one correction for the whole model, under
    which only halos move between layers. The pruning half of MeDNN is lossy and left out.
    """

    name: str = "mednn"

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """The better reading.

        Raises:
            PolicyError: the model does not fit into memory.
        """
        cuts = layer_cuts(problem.graph)
        readings = [_by_layer(problem, cuts), shared_out(problem.graph, cuts, _whole_model(problem, cuts))]
        return best_of(problem, [fitted(problem, strategy) for strategy in readings])


def _by_layer(problem: PlanningProblem, cuts: tuple[str, ...]) -> Strategy:
    graph, devices = problem.graph, len(problem.devices)
    scheme = PartitionScheme(with_head_cut(graph, cuts))
    splits = tuple(
        all_on(volume.rows, 0, devices)
        if graph.head.issuperset(volume.nodes)
        else _corrected(problem, volume)
        for volume in find_volumes(graph, scheme)
    )
    return Strategy(scheme, splits)


def _corrected(problem: PlanningProblem, volume: Volume) -> SplitDecision:
    pricer = pricer_for(problem)
    devices = range(len(problem.devices))
    whole = np.array([pricer.compute_seconds(d, volume.nodes) for d in devices])
    half = np.array([pricer.compute_seconds(d, volume.nodes, 0.5) for d in devices])
    slope = np.maximum(2 * (whole - half), 1e-12) / volume.rows
    fixed = np.maximum(whole - slope * volume.rows, 0.0)
    split = SplitDecision.from_shares(volume.rows, list(1.0 / slope))
    rows = np.array([split.part(d).size for d in devices])
    while True:
        finish = np.where(rows > 0, fixed + slope * rows, 0.0)
        last = int(np.argmax(finish))
        with_one_more = fixed + slope * (rows + 1)
        with_one_more[last] = np.inf
        first = int(np.argmin(with_one_more))
        if with_one_more[first] >= finish[last]:
            break
        rows[last] -= 1
        rows[first] += 1
    return SplitDecision((0, *(int(end) for end in np.cumsum(rows))))


def _whole_model(problem: PlanningProblem, cuts: tuple[str, ...]) -> Array:
    """Shares by the same greedy correction of the whole model's time, in steps that shrink."""
    model = linear_model(problem.graph, cuts)
    per_mac = seconds_per_mac(problem)
    shares = (1.0 / per_mac) / (1.0 / per_mac).sum()
    finish = _finish_times(problem, model, per_mac, shares[None])[0]
    step = 1 / 8
    while step > 1 / 300:
        last = int(np.argmax(finish))
        moves = []
        for device in range(len(shares)):
            if device != last:
                moved = shares.copy()
                amount = min(step, shares[last])
                moved[last] -= amount
                moved[device] += amount
                moves.append(moved)
        if not moves:
            break
        times = _finish_times(problem, model, per_mac, np.array(moves))
        best = int(np.argmin(times.max(axis=1)))
        if times[best].max() < finish.max():
            shares, finish = moves[best], times[best]
        else:
            step /= 2
    return np.asarray(shares)


def _finish_times(problem: PlanningProblem, model: LinearModel, per_mac: Array, shares: Array) -> Array:
    forth, others = seconds_per_byte(problem, shares.max(axis=0) > 0)
    work, received = model.by_volume(fractions_of(shares))
    seconds = work.sum(axis=0) * per_mac + received[0] * forth + received[1:].sum(axis=0) * others
    return np.asarray(seconds)
