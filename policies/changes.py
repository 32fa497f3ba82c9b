"""Random changes of a strategy: of its cuts, of its rows, of its lanes and of the tail's device."""

from __future__ import annotations

import numpy as np

from distredge.sim.jit import internal
from distredge.sim.packed import Packed
from distredge.sim.records import Floats, Ints
from policies.state import State, move_bound, scale_bounds

FINEST = 256
"""A bound moves by at least this part of the height: higher tensors hold several rows of a map in one."""
LANES = 0.4
"""How likely a change is one of lanes, where devices have several."""


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
