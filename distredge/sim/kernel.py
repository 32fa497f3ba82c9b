"""The evaluator: one frame's latency under one strategy, compiled.

It mirrors `distredge.plan.compile` (who computes and fetches which rows) and `distredge.sim.replay` (when),
and equals them to rounding. Tests hold it to that on every model of the zoo.
"""

from __future__ import annotations

import numpy as np

from distredge.sim.clock import run_clock
from distredge.sim.jit import inlined, internal
from distredge.sim.moves import clear, fetch, fetch_gaps, hold
from distredge.sim.packed import MAPPED, NEVER, SAME, SYNC, WHOLE, Packed
from distredge.sim.program import TO_READ, TO_STEP, Program
from distredge.sim.records import Ints
from distredge.sim.work import Work, new_work

__all__ = ["Work", "new_work", "price"]


@inlined
def price(g: Packed, p: Program, volumes: int, w: Work, bounds: Ints, tail: int, limit_s: float) -> float:
    """Latency of one strategy.

    Args:
        g: the problem.
        p: the scheme, from `build_program`.
        volumes: of the scheme.
        w: scratch; afterwards it holds tasks and transfers.
        bounds: [volume, part + 1].
        tail: device that runs the tail; -1: the one with most rows in the last volume.
        limit_s: give up and return infinity once the frame is known to take longer.

    Returns:
        Seconds; infinity where it is above the limit, or the scratch is too small for the strategy.
    """
    w.counts[0] = 1
    w.counts[1] = 0
    w.counts[2] = 0
    d = g.devices
    program = p.counts[2] >> 40
    if w.counts[3] != program:
        w.counts[3] = program
        for v in range(len(w.seen)):
            w.seen[v, 0] = 0
    if tail < 0:
        tail = _most_rows(g, bounds, volumes - 1)
    for device in range(d):
        w.device[device].first = -1
        w.device[device].last = -1
    w.task[0].sends = -1
    w.task[0].last_send = -1
    for slot in range(len(g.model_inputs)):
        clear(g, w, slot)
        w.height[slot] = g.tensor[g.model_inputs[slot]].rows
    for v in range(volumes):
        _volume(g, p, v, w, bounds, tail)
    if g.tail_runs:
        _tail(g, p, volumes, w, tail)
    inputs = len(g.model_inputs)
    for tensor in g.model_outputs:
        slot = p.tensor[tensor].slot
        if slot >= inputs:
            whole = g.tensor[tensor].rowed == 0
            rows = 1 if whole else w.height[slot]
            fetch(g, p, w, slot, d, 0, 0, rows, whole, tail)
    if w.counts[2]:
        return np.inf
    return run_clock(g, w, limit_s)


@inlined
def _most_rows(g: Packed, bounds: Ints, v: int) -> int:
    """The device with most rows."""
    parts = len(g.part_device)
    best, most, begin = 0, -1, 0
    for part in range(parts):
        if part + 1 == parts or g.part_device[part + 1] != g.part_device[part]:
            rows = bounds[v, part + 1] - begin
            begin = bounds[v, part + 1]
            if rows > most:
                best, most = g.part_device[part], rows
    return best


@inlined
def _biggest(bounds: Ints, v: int, parts: int) -> int:
    best, most = 0, bounds[v, 1] - bounds[v, 0]
    for part in range(1, parts):
        rows = bounds[v, part + 1] - bounds[v, part]
        if rows > most:
            best, most = part, rows
    return best


@inlined
def _volume(g: Packed, p: Program, v: int, w: Work, bounds: Ints, tail: int) -> None:
    parts = len(g.part_device)
    known = _is_known(p, v, w, bounds, parts)
    if not known:
        rows = p.volume[v].rows
        for share in range(p.volume[v].shares, p.volume[v + 1].shares):
            _cut(w, share, bounds, v, rows, p.share[share].rows, p.share[share].quantum, parts)
        if p.volume[v].reduces == 1:
            _join(g, p, v, w, parts)
    pubs, pubs_end = p.volume[v].pubs, p.volume[v + 1].pubs
    for pub in range(pubs, pubs_end):
        slot = p.pub[pub].slot
        clear(g, w, slot)
        w.height[slot] = g.tensor[p.slot_tensor[slot]].rows
        if p.pub[pub].partial == 1:
            share = p.pub[pub].share
            w.height[slot] = _owners_before(w, share, parts)
    if not known:
        lead = _biggest(bounds, v, parts) if p.volume[v].leads == 1 else -1
        for part in range(parts):
            _demand(g, p, v, w, part, part == lead)
    stage_at, stages = p.volume[v].stage_at, p.volume[v].stages
    reads, reads_end = p.volume[v].reads, p.volume[v + 1].reads
    for stage in range(stages):
        for turn in range(parts):
            part = g.run_order[turn]
            seconds = w.stage_s[stage_at + stage, part]
            if seconds < 0.0:
                continue
            device = g.part_device[part]
            task = _new_task(w, device, v, seconds)
            reading = False
            for read in range(reads, reads_end):
                first, last = w.read[read, part].first, w.read[read, part].last
                if p.read[read].stage == stage and last > first:
                    reading = True
                    if p.read[read].slot >= 0:
                        whole = p.read[read].whole == 1
                        fetch(g, p, w, p.read[read].slot, device, task, first, last, whole, tail)
            if not reading and len(g.model_inputs) > 0:
                _wake(g, w, device, task)
            for pub in range(pubs, pubs_end):
                if p.step[p.pub[pub].step].stage == stage:
                    _give(p, w, pub, part, device, task)


@inlined
def _is_known(p: Program, v: int, w: Work, bounds: Ints, parts: int) -> bool:
    """Whether the scratch holds what was found for this very volume and bounds; from now on it will."""
    layout = p.volume[v].layout if p.volume[v].alone == 1 else 0
    known = w.seen[v, 0] == layout and layout > 0
    w.seen[v, 0] = layout
    for part in range(1, parts):
        known = known and w.seen[v, part] == bounds[v, part]
        w.seen[v, part] = bounds[v, part]
    return known


@internal
def _wake(g: Packed, w: Work, device: int, task: int) -> None:
    """A task that reads constants alone gets a row of the first input, to know that there is a frame."""
    first = g.model_inputs[0]
    w.task[task].seconds += g.device[device].s_per_byte * g.tensor[first].row_bytes
    fetch_gaps(g, w, 0, first, device, task, 0, 1, g.devices, 0, 0, NEVER)
    hold(w, 0, device, 0, 1)


@inlined
def _cut(w: Work, share: int, bounds: Ints, v: int, rows: int, height: int, quantum: int, parts: int) -> None:
    """`SplitDecision.scaled`."""
    if rows == height and quantum == 1:
        for part in range(parts + 1):
            w.bounds[share, part] = bounds[v, part]
        return
    for part in range(parts + 1):
        bound = bounds[v, part]
        scaled = (2 * bound * height + rows * quantum) // (2 * rows * quantum) * quantum
        w.bounds[share, part] = height if bound == rows else min(height, scaled)


@internal
def _join(g: Packed, p: Program, v: int, w: Work, parts: int) -> None:
    """`Strategy.joined`: in place, since a bound's stand-in is never one that has moved itself."""
    for share in range(p.volume[v].shares, p.volume[v + 1].shares):
        for part in range(parts):
            w.bounds[share, part] = w.bounds[share, g.joined[part]]


@inlined
def _owners_before(w: Work, share: int, part: int) -> int:
    """Parts before this one that own rows."""
    count = 0
    for other in range(part):
        if w.bounds[share, other + 1] > w.bounds[share, other]:
            count += 1
    return count


@inlined
def _demand(g: Packed, p: Program, v: int, w: Work, part: int, lead: bool) -> None:
    """`find_demand`: the rows of each step and read, and the seconds of each stage."""
    device, stage_at = g.part_device[part], p.volume[v].stage_at
    for stage in range(p.volume[v].stages):
        w.stage_s[stage_at + stage, part] = -1.0
    if p.volume[v].chain == 1:
        _pull(g, p, v, w, part)
        return
    begin, end = p.volume[v].steps, p.volume[v + 1].steps
    active = lead
    for own in range(p.step[begin].owns, p.step[end].owns):
        share = p.own[own].share
        if w.bounds[share, part + 1] > w.bounds[share, part]:
            active = True
    if not active:
        return
    for step in range(begin, end):
        w.step[step].first = NEVER
        w.step[step].last = 0
    for read in range(p.volume[v].reads, p.volume[v + 1].reads):
        w.read[read, part].first = NEVER
        w.read[read, part].last = 0
    for step in range(begin, end):
        first, last = w.step[step].first, w.step[step].last
        for own in range(p.step[step].owns, p.step[step + 1].owns):
            share = p.own[own].share
            a, b = w.bounds[share, part], w.bounds[share, part + 1]
            if b > a:
                if p.own[own].partial == 1:
                    a = _owners_before(w, share, part)
                    b = a + 1
                first, last = min(first, a), max(last, b)
        if p.step[step].whole == 1:
            first, last = min(first, 0), max(last, 1)
        w.step[step].first, w.step[step].last = first, last
        if last <= first:
            continue
        if p.step[step].reduces >= 0:
            share = p.step[step].reduces
            first, last = w.bounds[share, part], w.bounds[share, part + 1]
        for at in range(p.step[step].edges, p.step[step + 1].edges):
            kind = p.edge[at].kind
            if kind == MAPPED:
                a = np.int64(g.maps[p.edge[at].first + first])
                b = np.int64(g.maps[p.edge[at].last + last])
            elif kind == SAME:
                a, b = first, last
            elif kind == WHOLE:
                a, b = 0, 1
            elif kind == SYNC:
                a, b = 0, p.edge[at].rows
                if b < 0:
                    b = w.height[p.edge[at].slot]
            else:
                a, b = NEVER, 0
                for row in range(first, last):
                    a = min(a, np.int64(g.maps[p.edge[at].first + row]))
                    b = max(b, np.int64(g.maps[p.edge[at].last + row]))
            way = p.edge[at].way
            if way != TO_READ:
                to = p.edge[at].step
                w.step[to].first, w.step[to].last = min(w.step[to].first, a), max(w.step[to].last, b)
            if way != TO_STEP:
                to = p.edge[at].read
                w.read[to, part].first = min(w.read[to, part].first, a)
                w.read[to, part].last = max(w.read[to, part].last, b)
        stage = stage_at + p.step[step].stage
        seconds = w.stage_s[stage, part]
        if seconds < 0.0:
            seconds = g.device[device].fixed_s
        for at in range(p.step[step].costs, p.step[step + 1].costs):
            seconds += g.seconds[device, p.cost[at] + last - first]
        w.stage_s[stage, part] = seconds
    for pub in range(p.volume[v].pubs, p.volume[v + 1].pubs):
        w.pub[pub, part].first = w.step[p.pub[pub].step].first
        w.pub[pub, part].last = w.step[p.pub[pub].step].last
    if g.device[device].s_per_byte > 0.0:
        _count_bytes(g, p, v, w, part)


@inlined
def _pull(g: Packed, p: Program, v: int, w: Work, part: int) -> None:
    """The same for a chain, four times as fast."""
    begin, read, pub = p.volume[v].steps, p.volume[v].reads, p.volume[v].pubs
    device = g.part_device[part]
    share = p.pub[pub].share
    first, last = w.bounds[share, part], w.bounds[share, part + 1]
    w.pub[pub, part].first, w.pub[pub, part].last = first, last
    w.read[read, part].first, w.read[read, part].last = 0, 0
    if last <= first:
        return
    seconds = g.device[device].fixed_s
    for step in range(begin, p.volume[v + 1].steps):
        for at in range(p.step[step].costs, p.step[step + 1].costs):
            seconds += g.seconds[device, p.cost[at] + last - first]
        at = p.step[step].edges
        if p.edge[at].kind == MAPPED:
            first = np.int64(g.maps[p.edge[at].first + first])
            last = np.int64(g.maps[p.edge[at].last + last])
            if last <= first:
                break
    w.read[read, part].first, w.read[read, part].last = first, last
    w.stage_s[p.volume[v].stage_at, part] = seconds
    if g.device[device].s_per_byte > 0.0:
        _count_bytes(g, p, v, w, part)


@internal
def _count_bytes(g: Packed, p: Program, v: int, w: Work, part: int) -> None:
    """Adds the boundary cost of a part's tasks in one volume."""
    rate, stage_at = g.device[g.part_device[part]].s_per_byte, p.volume[v].stage_at
    for read in range(p.volume[v].reads, p.volume[v + 1].reads):
        rows = w.read[read, part].last - w.read[read, part].first
        if rows > 0:
            w.stage_s[stage_at + p.read[read].stage, part] += rate * rows * p.read[read].bytes
    for pub in range(p.volume[v].pubs, p.volume[v + 1].pubs):
        rows = w.pub[pub, part].last - w.pub[pub, part].first
        if rows > 0:
            w.stage_s[stage_at + p.step[p.pub[pub].step].stage, part] += rate * rows * p.pub[pub].bytes
    for kept in range(p.volume[v].kepts, p.volume[v + 1].kepts):
        step = p.kept[kept].step
        rows = w.step[step].last - w.step[step].first
        given = p.kept[kept].readers == p.kept[kept + 1].readers
        for at in range(p.kept[kept].readers, p.kept[kept + 1].readers):
            reader = p.kept_reader[at]
            given = given or w.step[reader].last <= w.step[reader].first
        if rows > 0 and given:
            w.stage_s[stage_at + p.step[step].stage, part] += rate * rows * p.kept[kept].bytes


@inlined
def _new_task(w: Work, device: int, volume: int, seconds: float) -> int:
    task = int(w.counts[0])
    w.counts[0] = task + 1
    w.task[task].on = device
    w.task[task].volume = volume
    w.task[task].seconds = seconds
    w.task[task].missing = 0
    w.task[task].ready = 0.0
    w.task[task].next = -1
    w.task[task].sends = -1
    w.task[task].last_send = -1
    if w.device[device].first < 0:
        w.device[device].first = task
    else:
        w.task[w.device[device].last].next = task
    w.device[device].last = task
    return task


@internal
def _hold_more(w: Work, slot: int, device: int, first: int, last: int) -> None:
    """`hold`, where it is rare: another lane has made rows of the same tensor."""
    hold(w, slot, device, first, last)


@inlined
def _give(p: Program, w: Work, pub: int, part: int, device: int, task: int) -> None:
    """A task has made rows that others may fetch."""
    first, last = w.pub[pub, part].first, w.pub[pub, part].last
    if last <= first:
        return
    slot = p.pub[pub].slot
    if w.held_count[slot, device] == 0:
        w.held_count[slot, device] = 1
        w.held[slot, device, 0].first = first
        w.held[slot, device, 0].last = last
    else:
        _hold_more(w, slot, device, first, last)
    w.owner[slot, part].task = task
    share = p.pub[pub].share
    if share < 0:
        w.owner[slot, part].first, w.owner[slot, part].last = 0, 1
        return
    a, b = w.bounds[share, part], w.bounds[share, part + 1]
    if p.pub[pub].partial == 0:
        w.owner[slot, part].first, w.owner[slot, part].last = a, b
    elif b > a:
        w.owner[slot, part].first, w.owner[slot, part].last = first, last


@internal
def _tail(g: Packed, p: Program, volumes: int, w: Work, tail: int) -> None:
    moved = g.tail_made_bytes
    task = _new_task(w, tail, volumes, 0.0)
    for at in range(len(g.tail_read)):
        tensor = g.tail_read[at].tensor
        slot = p.tensor[tensor].slot
        last = g.tail_read[at].last if g.tail_read[at].last >= 0 else w.height[slot]
        first, size = g.tail_read[at].first, g.tensor[tensor].row_bytes
        moved += (last - first) * size
        fetch(g, p, w, slot, tail, task, first, last, g.tensor[tensor].rowed == 0, tail)
    w.task[task].seconds += g.device[tail].tail_s + g.device[tail].fixed_s + g.device[tail].s_per_byte * moved
    part = np.searchsorted(g.part_device, tail)
    for tensor in g.tail_makes:
        slot = p.tensor[tensor].slot
        clear(g, w, slot)
        w.owner[slot, part].first, w.owner[slot, part].last = 0, 1
        w.owner[slot, part].task = task
        w.height[slot] = 1
