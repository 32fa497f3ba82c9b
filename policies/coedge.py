"""`coedge`: rows that balance compute and transfer, layer by layer (CoEdge, Zeng et al., ToN 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distredge.plan.execution import REQUESTER
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import Strategy
from policies.cuts import layer_cuts
from policies.linear import Array, LinearModel, linear_model, seconds_per_byte, seconds_per_mac, trunk_macs
from policies.memory import fitted
from policies.parts import fractions_of, shared_out


@dataclass(frozen=True)
class CoEdge:
    """Every layer is a volume; all are cut at the same shares, so that only halos move between layers.

    The shares are the optimum of a linear program [S: its abstract; R: the details]: device d takes
    `share_d * a_d + b_d`, where a is compute and the transfer of its part of input and output, and b the
    halos that it must receive in every layer and its messages; the slowest device's time is least when all
    are equal. A device whose share would be thinner than the halo in the lowest layer that is cut is
    dropped, the one with the smallest share first, and the rest is balanced anew. Where the definition
    leaves room: latency alone is minimised, not energy under a deadline.
    """

    name: str = "coedge"

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """The same balanced shares for every layer.

        Raises:
            PolicyError: the model does not fit into memory.
        """
        cuts = layer_cuts(problem.graph)
        return fitted(problem, shared_out(problem.graph, cuts, balanced_shares(problem, cuts)))


def balanced_shares(problem: PlanningProblem, cuts: tuple[str, ...]) -> Array:
    """Shares under which all devices that have one finish at the same time, by the linear model."""
    graph, network = problem.graph, problem.network
    model = linear_model(graph, cuts)
    used = np.ones(len(problem.devices), dtype=bool)
    sent = sum(graph.tensors[name].total_bytes for name in graph.inputs)
    returned = sum(graph.tensors[name].total_bytes for name in graph.outputs)
    work = trunk_macs(graph)
    back = np.array([network.seconds_per_byte[d, REQUESTER] for d in range(len(used))])
    heights = [graph.tensors[cut].rows for cut in cuts if graph.tensors[cut].row_axis is not None]
    thinnest = 1.0 / max(2, min(heights, default=2))
    while True:
        forth, others = seconds_per_byte(problem, used)
        slope = work * seconds_per_mac(problem) + sent * forth + returned * back
        halo = _halo_bytes(model, used) * others
        inverse = np.where(used, 1.0 / np.maximum(slope, 1e-15), 0.0)
        finish = (1.0 + (halo * inverse).sum()) / inverse.sum()
        shares = np.where(used, (finish - halo) * inverse, 0.0)
        thin = used & (shares < thinnest)
        if not thin.any() or used.sum() == 1:
            return np.maximum(shares, 0.0)
        used[int(np.argmin(np.where(thin, shares, np.inf)))] = False


def _halo_bytes(model: LinearModel, used: np.ndarray) -> Array:
    """Bytes that each device receives from others over all layers but the first."""
    fractions = fractions_of(used.astype(float)[None])
    _, received = model.by_volume(fractions)
    return np.asarray(received[1:, 0].sum(axis=0))
