"""Simulated annealing over partition schemes, split decisions and the tail's device, in compiled code."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distredge.sim.jit import compiled, internal
from distredge.sim.kernel import Work, price
from distredge.sim.packed import Packed
from distredge.sim.program import Program, build_program

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


FINEST = 256
"""A bound moves by at least this part of the height: higher tensors hold several rows of a map in one."""
MORE = 0.2
"""How likely one more change comes with a change."""
CUT_COST = 5e-4
"""What a cut counts, as a share of the best latency: so idle ones go, each of which makes every evaluation
slower, and changes of volumes that matter rarer."""


LANES = 0.4
"""How likely a change is one of lanes, where devices have several."""


class Limits(NamedTuple):
    """Memory, by the places between which a volume may lie; empty arrays where nothing can be too much."""

    device_bytes: Floats  # per device
    weights: Floats  # [start, end] bytes of a volume's weights
    shared: Floats  # [start, end] bytes of those that are shared out with its rows
    maps: Floats  # [start, end] bytes of its maps, for all rows
    tail_weights: float
    tail_maps: float


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


@compiled
def seed_random(seed: int) -> None:
    """Seeds the generator of the compiled code."""
    np.random.seed(seed)


@compiled
def price_state(g: Packed, p: Program, w: Work, state: State) -> float:
    """Latency of a strategy; `p` holds the program of its scheme afterwards, `state` its grains."""
    build_program(g, state.ends, state.volumes[0], p)
    for v in range(state.volumes[0]):
        state.grain[v] = p.volume[v].grain
    return price(g, p, state.volumes[0], w, state.bounds, state.tail[0], 1e30)


@compiled
def anneal(
    g: Packed,
    p: Program,
    other: Program,
    w: Work,
    other_w: Work,
    nodes: Ints,
    speeds: Floats,
    limits: Limits,
    state: State,
    tried: State,
    best: State,
    latency_s: float,
    best_s: float,
    evaluations: int,
    hot: float,
    cold: float,
) -> tuple[float, float]:
    """Some evaluations of one run.

    Args:
        g: the problem.
        p: the program of `state`'s scheme; holds that of its last scheme afterwards.
        other: room for another one.
        w, other_w: the evaluator's scratch, one for each program.
        nodes: node of each candidate cut, rising.
        speeds: per part; changes that hand out rows anew go by them.
        limits: memory.
        state: where the run stands; changed.
        tried: scratch.
        best: the best strategy met; changed when a better one is.
        latency_s: of `state`.
        best_s: of `best`.
        evaluations: how many.
        hot, cold: temperatures of the first and the last, as shares of `best_s`.

    Returns:
        Latency of `state` and of `best`.
    """
    d = len(g.part_device)
    if d == 1 and len(nodes) == 0:
        return latency_s, best_s  # there is nothing to change
    cooling = (cold / hot) ** (1.0 / max(1, evaluations - 1))
    temperature = hot
    held = False  # whether `other`, not `p`, holds the program of `state`
    for _ in range(evaluations):
        temperature *= cooling
        copy_state(state, tried)
        rebuilt = False
        while np.random.random() < MORE or not (rebuilt or _differ(state, tried, d)):
            rebuilt = change(g, nodes, speeds, tried, d) or rebuilt
            _snap(tried, d)
        if rebuilt:
            program = p if held else other
            build_program(g, tried.ends, tried.volumes[0], program)
            for v in range(tried.volumes[0]):
                fit_height(tried.bounds, v, program.volume[v].rows, d)
                tried.grain[v] = program.volume[v].grain
        if len(limits.device_bytes) > 0 and not fits(limits, g.part_device, tried):
            continue
        volumes = tried.volumes[0]
        bar = latency_s - temperature * best_s * np.log(1.0 - np.random.random())
        bar -= CUT_COST * best_s * (volumes - state.volumes[0])
        # two calls: the compiler wants one type, not two names for it
        if held != rebuilt:
            found = price(g, other, volumes, other_w, tried.bounds, tried.tail[0], bar)
        else:
            found = price(g, p, volumes, w, tried.bounds, tried.tail[0], bar)
        if found <= bar:
            copy_state(tried, state)
            latency_s = found
            if rebuilt:
                held = not held
            if found < best_s:
                best_s = found
                copy_state(state, best)
    if held:
        build_program(g, state.ends, state.volumes[0], p)
    return latency_s, best_s


@internal
def _snap(tried: State, d: int) -> None:
    """Bounds at multiples of what matters: two strategies that differ by less are one."""
    for v in range(tried.volumes[0]):
        grain, rows = tried.grain[v], tried.bounds[v, d]
        if grain > 1:
            for i in range(1, d):
                tried.bounds[v, i] = min(rows, (2 * tried.bounds[v, i] + grain) // (2 * grain) * grain)


@internal
def _differ(state: State, tried: State, d: int) -> bool:
    """Whether rows or tail of two strategies of one scheme are not the same."""
    for v in range(state.volumes[0]):
        for i in range(1, d):
            if state.bounds[v, i] != tried.bounds[v, i]:
                return True
    return bool(state.tail[0] != tried.tail[0])


@internal
def change(g: Packed, nodes: Ints, speeds: Floats, tried: State, d: int) -> bool:
    """One random change; returns whether cuts changed."""
    volumes = tried.volumes[0]
    if d > g.devices and np.random.random() < LANES:
        if np.random.random() < 0.5:
            _share_lanes(g.part_device, tried, volumes, d)
        else:
            _move_border(g.part_device, tried, volumes, d)
        return False
    kind = np.random.random()
    if d == 1:
        kind = 0.8 + 0.2 * kind
    v = np.random.randint(volumes)
    if kind < 0.24:
        at = np.random.randint(1, d) if d > 1 else 0
        size = _step(tried.bounds[v, d], tried.grain[v])
        move_bound(tried.bounds, v, at, tried.bounds[v, at] + size, d)
    elif kind < 0.38:
        _move_several(tried, volumes, d)
    elif kind < 0.45:
        _hand_out(tried, speeds, volumes, d)
    elif kind < 0.55:
        device = np.random.randint(d)
        size = _step(tried.bounds[v, d], tried.grain[v])
        a, b = tried.bounds[v, device], tried.bounds[v, device + 1]
        if device > 0:
            move_bound(tried.bounds, v, device, a + size, d)
        if device < d - 1:
            move_bound(tried.bounds, v, device + 1, b + size, d)
    elif kind < 0.63:
        if volumes > 1:
            source = v - 1 if v > 0 and (v == volumes - 1 or np.random.random() < 0.5) else v + 1
            scale_bounds(tried.bounds, source, tried.bounds, v, tried.bounds[v, d], d)
    elif kind < 0.70:
        _drop_or_give(tried, volumes, d)
    elif kind < 0.74:
        if g.tail_runs:
            tried.tail[0] = np.random.randint(g.devices)
        else:
            _move_several(tried, volumes, d)
    elif len(nodes) > 0:
        return _change_cuts(nodes, tried, volumes, v, kind, d)
    return False


@internal
def _change_cuts(nodes: Ints, tried: State, volumes: int, v: int, kind: float, d: int) -> bool:
    if kind < 0.83 and volumes <= len(nodes):
        place = _free_place(tried, volumes, len(nodes))
        _insert_cut(nodes, tried, volumes, place, d)
        return True
    if volumes == 1:
        place = np.random.randint(1, len(nodes) + 1)
        _insert_cut(nodes, tried, volumes, place, d)
        return True
    cut = np.random.randint(volumes - 1)
    if kind < 0.91:
        _remove_cut(tried, volumes, cut, np.random.random() < 0.5, d)
        return True
    low = 1 if cut == 0 else tried.places[cut - 1] + 1
    high = tried.places[cut + 1] - 1
    place = tried.places[cut]
    place += np.random.randint(1, 4) if np.random.random() < 0.5 else -np.random.randint(1, 4)
    place = min(max(place, low), high)
    if place == tried.places[cut]:
        _remove_cut(tried, volumes, cut, np.random.random() < 0.5, d)
        return True
    tried.places[cut] = place
    tried.ends[cut] = nodes[place - 1]
    return True


@internal
def _free_place(tried: State, volumes: int, candidates: int) -> int:
    """A place where no volume ends, all equally likely."""
    skip = np.random.randint(candidates - volumes + 1)
    place, at = 1, 0
    while True:
        if at < volumes - 1 and tried.places[at] == place:
            at += 1
        elif skip == 0:
            return place
        else:
            skip -= 1
        place += 1


@internal
def _insert_cut(nodes: Ints, tried: State, volumes: int, place: int, d: int) -> None:
    at = 0
    while tried.places[at] < place:
        at += 1
    for v in range(volumes, at, -1):
        tried.places[v] = tried.places[v - 1]
        tried.ends[v] = tried.ends[v - 1]
        tried.grain[v] = tried.grain[v - 1]
        for i in range(d + 1):
            tried.bounds[v, i] = tried.bounds[v - 1, i]
    tried.places[at] = place
    tried.ends[at] = nodes[place - 1]
    tried.volumes[0] = volumes + 1


@internal
def _remove_cut(tried: State, volumes: int, cut: int, keep_first: bool, d: int) -> None:
    """Joins volumes `cut` and `cut + 1`; the bounds of one of them stay."""
    if keep_first:
        for i in range(d + 1):
            tried.bounds[cut + 1, i] = tried.bounds[cut, i]
    for v in range(cut, volumes - 1):
        tried.places[v] = tried.places[v + 1]
        tried.ends[v] = tried.ends[v + 1]
        tried.grain[v] = tried.grain[v + 1]
        for i in range(d + 1):
            tried.bounds[v, i] = tried.bounds[v + 1, i]
    tried.volumes[0] = volumes - 1


@internal
def _step(rows: int, grain: int) -> int:
    """How far a bound moves: mostly a little, at times up to half of the height, either way."""
    least, most = max(1.0, rows / FINEST / grain), max(1.0, rows / 2.0 / grain)
    size = grain * int(least * (most / least) ** np.random.random())
    return size if np.random.random() < 0.5 else -size


@internal
def move_bound(bounds: Ints, v: int, at: int, to: int, d: int) -> None:
    """Sets one bound; those that it passes go with it."""
    to = min(max(to, 0), bounds[v, d])
    bounds[v, at] = to
    for i in range(1, at):
        bounds[v, i] = min(bounds[v, i], to)
    for i in range(at + 1, d):
        bounds[v, i] = max(bounds[v, i], to)


@internal
def _move_several(tried: State, volumes: int, d: int) -> None:
    """Moves one bound by the same share of the height in some consecutive volumes."""
    if d == 1:
        return
    at = np.random.randint(1, d)
    first = np.random.randint(volumes)
    last = np.random.randint(first, volumes)
    share = _step(tried.bounds[first, d], tried.grain[first]) / max(1, tried.bounds[first, d])
    for v in range(first, last + 1):
        to = tried.bounds[v, at] + int(np.round(share * tried.bounds[v, d]))
        move_bound(tried.bounds, v, at, to, d)


@internal
def _drop_or_give(tried: State, volumes: int, d: int) -> None:
    """Takes all rows from one device in some consecutive volumes, or gives it those of a neighbour."""
    device = np.random.randint(d)
    first = np.random.randint(volumes)
    last = np.random.randint(first, volumes)
    up = np.random.random() < 0.5
    drop = np.random.random() < 0.7
    for v in range(first, last + 1):
        a, b = tried.bounds[v, device], tried.bounds[v, device + 1]
        if drop:
            if up and device > 0:
                move_bound(tried.bounds, v, device, b, d)
            elif device < d - 1:
                move_bound(tried.bounds, v, device + 1, a, d)
        elif up and device > 0:
            move_bound(tried.bounds, v, device, tried.bounds[v, device - 1], d)
        elif device < d - 1:
            move_bound(tried.bounds, v, device + 1, tried.bounds[v, device + 2], d)


@internal
def _hand_out(tried: State, speeds: Floats, volumes: int, d: int) -> None:
    """Shares some consecutive volumes out anew: to a few devices, roughly by speed."""
    first = np.random.randint(volumes)
    last = np.random.randint(first, volumes)
    chance = np.random.random()
    total = 0.0
    shares = tried.shares
    for device in range(d):
        shares[device] = 0.0
        if np.random.random() < chance:
            shares[device] = speeds[device] * np.exp(0.7 * np.random.randn())
            total += shares[device]
    if total == 0.0:
        device = np.random.randint(d)
        shares[device] = total = 1.0
    for v in range(first, last + 1):
        rows = tried.bounds[v, d]
        seen = 0.0
        for device in range(d - 1):
            seen += shares[device]
            tried.bounds[v, device + 1] = int(np.round(rows * seen / total))


@internal
def _share_lanes(part_device: Ints, tried: State, volumes: int, d: int) -> None:
    """Shares what a device has of some consecutive volumes anew over its lanes, some of which get nothing."""
    device = part_device[np.random.randint(d)]
    begin, end = np.searchsorted(part_device, device), np.searchsorted(part_device, device + 1)
    first = np.random.randint(volumes)
    last = min(volumes - 1, first + int(np.random.exponential(2.0)))
    total = 0.0
    for part in range(begin, end):
        share = np.exp(np.random.randn()) if np.random.random() < 0.6 else 0.0
        tried.shares[part] = share
        total += share
    if total == 0.0:
        part = np.random.randint(begin, end)
        tried.shares[part] = total = 1.0
    for v in range(first, last + 1):
        a, b = tried.bounds[v, begin], tried.bounds[v, end]
        seen = 0.0
        for part in range(begin, end - 1):
            seen += tried.shares[part]
            tried.bounds[v, part + 1] = a + int(np.round((b - a) * seen / total))


@internal
def _move_border(part_device: Ints, tried: State, volumes: int, d: int) -> None:
    """Moves the border of two devices in some consecutive volumes, and with it the lanes on both sides."""
    at = np.searchsorted(part_device, part_device[np.random.randint(d)])
    if at == 0:
        return
    first = np.random.randint(volumes)
    last = min(volumes - 1, first + int(np.random.exponential(2.0)))
    share = _step(tried.bounds[first, d], tried.grain[first]) / max(1, tried.bounds[first, d])
    for v in range(first, last + 1):
        size = int(np.round(share * tried.bounds[v, d]))
        low, high = max(1, at - 1), min(d - 1, at + 1)
        for k in range(low, high + 1):
            bound = low + high - k if size > 0 else k  # none passes the next
            move_bound(tried.bounds, v, bound, tried.bounds[v, bound] + size, d)


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


@compiled
def fits(limits: Limits, part_device: Ints, tried: State) -> bool:
    """As `distredge.sim.memory` estimates."""
    volumes, tail = tried.volumes[0], tried.tail[0]
    if tail < 0:
        tail, most, begin = 0, -1, 0
        for device in range(len(limits.device_bytes)):
            end = np.searchsorted(part_device, device + 1)
            size = tried.bounds[volumes - 1, end] - tried.bounds[volumes - 1, begin]
            begin = end
            if size > most:
                tail, most = device, size
    begin = 0
    for device in range(len(limits.device_bytes)):
        end = np.searchsorted(part_device, device + 1)
        weights, maps = 0.0, 0.0
        start = 0
        for v in range(volumes):
            size = tried.bounds[v, end] - tried.bounds[v, begin]
            if size > 0:
                place = tried.places[v]
                weights += limits.weights[start, place]
                share = size / max(1, tried.bounds[v, -1])
                weights += limits.shared[start, place] * share
                maps = max(maps, limits.maps[start, place] * min(1.0, share + 0.1))
            start = tried.places[v]
        begin = end
        if device == tail:
            weights += limits.tail_weights
            maps = max(maps, limits.tail_maps)
        if weights + maps > limits.device_bytes[device]:
            return False
    return True
