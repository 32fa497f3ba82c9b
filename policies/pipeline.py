"""Pipelines: whole volumes one device behind another, cut so that none is busy for longer than it must."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.sim.pricing import Pricer
from policies.cuts import narrow_cuts

STEPS = 40
"""Halvings of the time that the slowest stage may take."""


def pipeline(pricer: Pricer, order: Sequence[int]) -> Strategy:
    """The stages of devices in this order; those without a stage have nothing to do. Links are not counted.

    Args:
        pricer: of the problem.
        order: devices.
    """
    graph = pricer.problem.graph
    cuts = narrow_cuts(graph)
    ends = np.array([0, *(graph.producer[cut] + 1 for cut in cuts), len(graph.nodes)])
    nodes = range(len(graph.nodes))
    spent = [
        np.concatenate([[0.0], np.cumsum([pricer.compute_seconds(device, (node,)) for node in nodes])])[ends]
        for device in order
    ]
    low, high = 0.0, max(float(each[-1]) for each in spent)
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if _filled(spent, middle)[-1] == len(ends) - 1 else (middle, high)
    stages = [
        (device, upto)
        for device, (before, upto) in zip(order, pairwise([0, *_filled(spent, high)]), strict=True)
        if upto > before
    ]
    scheme = PartitionScheme(tuple(cuts[upto - 1] for _, upto in stages[:-1]))
    return _on_devices(pricer, scheme, [device for device, _ in stages])


def _filled(spent: Sequence[NDArray[np.float64]], limit_s: float) -> list[int]:
    """Per device, how many pieces are done behind it, if each takes what it can in this time."""
    done, found = 0, []
    for each in spent:
        done = int(np.searchsorted(each, each[done] + limit_s, side="right")) - 1
        found.append(done)
    return found


def _on_devices(pricer: Pricer, scheme: PartitionScheme, devices: Sequence[int]) -> Strategy:
    count = len(pricer.problem.devices)
    splits = tuple(
        SplitDecision((0,) * (device + 1) + (rows,) * (count - device))
        for device, rows in zip(devices, pricer.scheme(scheme).rows, strict=True)
    )
    return Strategy(scheme, splits, devices[-1] if pricer.problem.graph.tail else None)
