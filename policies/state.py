"""One strategy in arrays, as the compiled search changes it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from distredge.sim.jit import compiled, internal
from distredge.sim.records import Floats, Ints


class State(NamedTuple):
    """One strategy, and room to change it."""

    volumes: Ints  # [1]
    places: Ints  # [volume] place at which each volume ends; the last: candidates + 1
    ends: Ints  # [volume] node of that place; the last: behind all nodes
    bounds: Ints  # [volume, part + 1]
    tail: Ints  # [1]
    grain: Ints  # [volume] rows by which a bound must move to change anything
    shares: Floats  # [part] scratch


def new_state(candidates: int, parts: int) -> State:
    """Room for any scheme out of so many candidate cuts."""
    size = candidates + 1
    return State(
        np.ones(1, np.int64),
        np.zeros(size, np.int64),
        np.zeros(size, np.int64),
        np.zeros((size, parts + 1), np.int64),
        np.zeros(1, np.int64),
        np.ones(size, np.int64),
        np.zeros(parts),
    )


@compiled
def copy_state(source: State, to: State) -> None:
    """Makes one strategy equal to another, in place."""
    count = source.volumes[0]
    to.volumes[0] = count
    to.tail[0] = source.tail[0]
    for v in range(count):
        to.places[v] = source.places[v]
        to.ends[v] = source.ends[v]
        to.grain[v] = source.grain[v]
        for i in range(source.bounds.shape[1]):
            to.bounds[v, i] = source.bounds[v, i]


@internal
def differ(state: State, tried: State, d: int) -> bool:
    """Whether rows or tail of two strategies of one scheme are not the same."""
    for v in range(state.volumes[0]):
        for i in range(1, d):
            if state.bounds[v, i] != tried.bounds[v, i]:
                return True
    return bool(state.tail[0] != tried.tail[0])


@internal
def snap(tried: State, d: int) -> None:
    """Bounds at multiples of what matters: two strategies that differ by less are one."""
    for v in range(tried.volumes[0]):
        grain, rows = tried.grain[v], tried.bounds[v, d]
        if grain > 1:
            for i in range(1, d):
                tried.bounds[v, i] = min(rows, (2 * tried.bounds[v, i] + grain) // (2 * grain) * grain)


@internal
def scale_bounds(source: Ints, at: int, to: Ints, v: int, rows: int, d: int) -> None:
    """The same fractions at another height."""
    height = max(1, source[at, d])
    for i in range(d):
        to[v, i] = (2 * source[at, i] * rows + height) // (2 * height)
    to[v, d] = rows


@internal
def fit_height(bounds: Ints, v: int, rows: int, d: int) -> None:
    """Brings a volume's bounds to the height that it has after a cut has moved."""
    if bounds[v, d] != rows:
        scale_bounds(bounds, v, bounds, v, rows, d)


@internal
def move_bound(bounds: Ints, v: int, at: int, to: int, d: int) -> None:
    """Sets one bound; those that it passes go with it."""
    to = min(max(to, 0), bounds[v, d])
    bounds[v, at] = to
    for i in range(1, at):
        bounds[v, i] = min(bounds[v, i], to)
    for i in range(at + 1, d):
        bounds[v, i] = max(bounds[v, i], to)
