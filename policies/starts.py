"""Where a search starts: simple strategies for many subsets of the devices and a few partition schemes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import Strategy
from policies.cuts import narrow_cuts, stage_cuts
from policies.linear import Array, LinearModel, alone_seconds, fused_cuts
from policies.parts import pricer_for, shared_out, single_device

_ALL_SUBSETS = 5
"""Up to so many devices, every subset of them is tried."""


def simple_strategies(problem: PlanningProblem) -> list[Strategy]:
    """Each device alone; and for subsets of the devices equal and proportional rows of one volume, of one per
    stage, of one per layer, of every second layer, and of those that the linear model finds fastest."""
    graph = problem.graph
    layers = narrow_cuts(graph)
    schemes = list(dict.fromkeys([(), stage_cuts(graph), layers[1::2], layers]))
    speeds = pricer_for(problem).speeds()
    found = [single_device(problem, device) for device in range(len(problem.devices))]
    subsets = list(_subsets(problem))
    shares = list(dict.fromkeys(tuple(each) for mask in subsets for each in (mask, mask * speeds)))
    if shares:
        fused = fused_cuts(problem, LinearModel(graph, layers), np.array(shares))
        for each, cuts in zip(shares, fused, strict=True):
            found.extend(shared_out(graph, scheme, each) for scheme in (cuts, *schemes))
    return found


def _subsets(problem: PlanningProblem) -> Iterator[Array]:
    """Masks of at least two devices: all of them, or the best so many by themselves, and the fastest."""
    count = len(problem.devices)
    if count <= _ALL_SUBSETS:
        chosen = [members for size in range(2, count + 1) for members in combinations(range(count), size)]
    else:
        orders = [np.argsort(alone_seconds(problem)), np.argsort(-pricer_for(problem).speeds())]
        sizes = [size for size in (2, 3, 4, 6, 8, 12, 16, 24, 32) if size < count]
        chosen = [tuple(order[:size]) for order in orders for size in [*sizes, count]]
    for members in chosen:
        mask = np.zeros(count)
        mask[list(members)] = 1.0
        yield mask
