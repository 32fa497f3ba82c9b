"""Lanes: which devices get several, and which of them a strategy does without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from distredge.plan.strategy import SplitDecision, Strategy, joined_ends

LANES = 3
"""Of a device that has several: two at its borders, and one between."""
MOST_LANED = 8
"""Devices that get several, those with most rows: more make every evaluation slower."""


def useful_lanes(strategy: Strategy) -> tuple[int, ...]:
    """Lanes that may improve a strategy without."""
    shares = sum(np.diff(split.bounds) / max(1, split.rows) for split in strategy.splits)
    devices = range(strategy.devices)
    busy = sorted((d for d in devices if shares[d] > 0), key=lambda d: -shares[d])[:MOST_LANED]
    return tuple(device for device in devices for _ in range(LANES if device in busy else 1))


def without_idle_lanes(strategy: Strategy, price: Callable[[Strategy], float], rounding: float) -> Strategy:
    """Joins a device's lanes of a volume wherever that costs nothing: each is one more task and session.

    Args:
        strategy: has lanes.
        price: latency in seconds.
        rounding: relative difference up to which latencies are equal.
    """
    latency = price(strategy)
    for volume in range(len(strategy.splits)):
        for device in range(strategy.devices):
            joined = _joined(strategy, volume, device)
            if joined != strategy and (found := price(joined)) <= latency * (1 + rounding):
                strategy, latency = joined, found
    return strategy


def _joined(strategy: Strategy, volume: int, device: int) -> Strategy:
    """The strategy with all rows of a device in one volume in the lane that it runs last."""
    lanes, ends = strategy.lanes, joined_ends(strategy.lanes)
    old = strategy.splits[volume].bounds
    new = (old[ends[at]] if lane == device else old[at] for at, lane in enumerate(lanes))
    splits = list(strategy.splits)
    splits[volume] = SplitDecision((*new, old[-1]))
    return replace(strategy, splits=tuple(splits))
