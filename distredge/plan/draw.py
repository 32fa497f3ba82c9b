"""Random strategies from a seed: for `verify`, for LC-PSS's averages, and for property tests."""

from __future__ import annotations

import random

from distredge.graph.model import Graph
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes


def random_scheme(graph: Graph, cuts: int, rng: random.Random) -> PartitionScheme:
    """A scheme with so many cuts, or as many as there are places for, all places equally likely."""
    at = rng.sample(range(len(graph.cut_points)), min(cuts, len(graph.cut_points)))
    return PartitionScheme(tuple(graph.cut_points[i] for i in sorted(at)))


def random_split(rows: int, devices: int, rng: random.Random, zero_share: float = 0.2) -> SplitDecision:
    """Uneven parts; each is empty with probability `zero_share`, though never all of them."""
    shares = [0.0 if rng.random() < zero_share else rng.expovariate(1.0) for _ in range(devices)]
    if not any(shares):
        shares[rng.randrange(devices)] = 1.0
    return SplitDecision.from_shares(rows, shares)


def random_strategy(
    graph: Graph, devices: int, cuts: int, rng: random.Random, *, most_lanes: int = 1
) -> Strategy:
    """Random cuts, random rows, and the tail on a random device; with lanes if there may be several."""
    scheme = random_scheme(graph, cuts, rng)
    lanes: tuple[int, ...] = ()
    if most_lanes > 1:
        lanes = tuple(device for device in range(devices) for _ in range(rng.randint(1, most_lanes)))
    parts = len(lanes) or devices
    splits = tuple(random_split(volume.rows, parts, rng) for volume in find_volumes(graph, scheme))
    return Strategy(scheme, splits, rng.randrange(devices), lanes)
