"""Simulated annealing over partition schemes, split decisions and the tail's device, in compiled code."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from distredge.sim.jit import compiled
from distredge.sim.kernel import Work, price
from distredge.sim.packed import Packed
from distredge.sim.program import Program, build_program
from distredge.sim.records import Floats, Ints
from policies.changes import change
from policies.state import State, copy_state, differ, fit_height, snap

MORE = 0.2
"""How likely one more change comes with a change."""
CUT_COST = 5e-4
"""What a cut counts, as a share of the best latency: so idle ones go, each of which makes every evaluation
slower, and changes of volumes that matter rarer."""


class Limits(NamedTuple):
    """Memory, by the places between which a volume may lie; empty arrays where nothing can be too much."""

    device_bytes: Floats  # per device
    weights: Floats  # [start, end] bytes of a volume's weights
    shared: Floats  # [start, end] bytes of those that are shared out with its rows
    maps: Floats  # [start, end] bytes of its maps, for all rows
    tail_weights: float
    tail_maps: float


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
        while np.random.random() < MORE or not (rebuilt or differ(state, tried, d)):
            rebuilt = change(g, nodes, speeds, tried, d) or rebuilt
            snap(tried, d)
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
