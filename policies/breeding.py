"""A population of strategies that are crossed: one up to a cut, another behind it. In compiled code."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from distredge.sim.jit import compiled, internal
from distredge.sim.packed import Packed
from distredge.sim.program import Program, build_program
from distredge.sim.records import Floats, Ints
from policies.state import State, fit_height

SAME = 1e-9
"""Strategies whose latencies are as close as this, relatively, are taken for one with idle cuts."""


class Population(NamedTuple):
    """Strategies in the form of `State`, best first, each with a latency of its own."""

    filled: Ints  # [1] how many there are
    latency_s: Floats
    volumes: Ints
    tail: Ints
    places: Ints  # [strategy, volume]
    bounds: Ints  # [strategy, volume, part + 1]


def new_population(size: int, candidates: int, parts: int) -> Population:
    """Room for so many strategies."""
    return Population(
        np.zeros(1, np.int64),
        np.zeros(size),
        np.zeros(size, np.int64),
        np.zeros(size, np.int64),
        np.zeros((size, candidates + 1), np.int64),
        np.zeros((size, candidates + 1, parts + 1), np.int64),
    )


@compiled
def offer(pool: Population, state: State, latency_s: float, d: int) -> bool:
    """Takes a strategy in, if it is better than the worst or there is room, and no other has its latency."""
    count, size = pool.filled[0], len(pool.latency_s)
    at = count
    while at > 0 and pool.latency_s[at - 1] > latency_s:
        at -= 1
    near = latency_s * SAME
    if at == size or (at > 0 and latency_s - pool.latency_s[at - 1] < near):
        return False
    if at < count and pool.latency_s[at] - latency_s < near:
        last = at  # it takes the place of its twin
    elif count < size:
        last = count
        pool.filled[0] = count + 1
    else:
        last = size - 1
    for to in range(last, at, -1):
        pool.latency_s[to] = pool.latency_s[to - 1]
        pool.volumes[to] = pool.volumes[to - 1]
        pool.tail[to] = pool.tail[to - 1]
        for v in range(pool.volumes[to]):
            pool.places[to, v] = pool.places[to - 1, v]
            for i in range(d + 1):
                pool.bounds[to, v, i] = pool.bounds[to - 1, v, i]
    pool.latency_s[at] = latency_s
    pool.volumes[at] = state.volumes[0]
    pool.tail[at] = state.tail[0]
    for v in range(state.volumes[0]):
        pool.places[at, v] = state.places[v]
        for i in range(d + 1):
            pool.bounds[at, v, i] = state.bounds[v, i]
    return True


@compiled
def take(pool: Population, at: int, nodes: Ints, behind_all: int, to: State) -> None:
    """Copies one strategy out."""
    cross(pool, at, at, 1, nodes, behind_all, to)


@compiled
def cross(
    pool: Population, first: int, second: int, place: int, nodes: Ints, behind_all: int, to: State
) -> None:
    """The first strategy up to a place, and the second behind it. Of one strategy with itself: that one.

    Bounds are those of the parents: `fit_height` must follow, once the program is built.
    """
    d = pool.bounds.shape[2] - 1
    count = 0
    if first != second:
        v = 0
        while True:
            for i in range(d + 1):
                to.bounds[count, i] = pool.bounds[first, v, i]
            to.places[count] = min(pool.places[first, v], place)
            count += 1
            if pool.places[first, v] >= place:
                break
            v += 1
    for v in range(pool.volumes[second]):
        if first == second or pool.places[second, v] > place:
            for i in range(d + 1):
                to.bounds[count, i] = pool.bounds[second, v, i]
            to.places[count] = pool.places[second, v]
            count += 1
    to.volumes[0] = count
    to.tail[0] = pool.tail[second]
    for v in range(count):
        to.ends[v] = nodes[to.places[v] - 1] if to.places[v] <= len(nodes) else behind_all


@internal
def _elite(pool: Population, decay: float) -> int:
    """A random strategy, the better the likelier."""
    at = int(-np.log(1.0 - np.random.random()) * decay)
    return at if at < pool.filled[0] else np.random.randint(pool.filled[0])


@compiled
def cross_random(g: Packed, p: Program, nodes: Ints, pool: Population, child: State, decay: float) -> None:
    """A child of two of the best.

    Args:
        g, p: the problem, and room for a program.
        nodes: node of each candidate cut.
        pool: where the parents are.
        child: what is made.
        decay: about how many of the best become parents.
    """
    first, second = _elite(pool, decay), _elite(pool, decay)
    cross(pool, first, second, np.random.randint(1, len(nodes) + 1), nodes, len(g.node), child)
    build_program(g, child.ends, child.volumes[0], p)
    for v in range(child.volumes[0]):
        fit_height(child.bounds, v, p.volume[v].rows, len(g.part_device))
