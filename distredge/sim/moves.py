"""The evaluator's transfers: who holds which rows, and who must send them; `_Compiler._fetch`, compiled."""

from __future__ import annotations

from distredge.sim.jit import inlined, internal
from distredge.sim.packed import NEVER, Packed
from distredge.sim.program import Program
from distredge.sim.work import HELD, Work


@inlined
def clear(g: Packed, w: Work, slot: int) -> None:
    """Forgets who has which rows of the tensor in a slot."""
    for device in range(g.devices):
        w.owner[slot, device].first = 0
        w.owner[slot, device].last = 0
        w.held_count[slot, device] = 0
    w.held_count[slot, g.devices] = 0
    for part in range(g.devices, len(g.part_device)):
        w.owner[slot, part].first = 0
        w.owner[slot, part].last = 0


@inlined
def fetch(
    g: Packed,
    p: Program,
    w: Work,
    slot: int,
    peer: int,
    task: int,
    first: int,
    last: int,
    whole: bool,
    tail: int,
) -> None:
    """`_Compiler._fetch`: transfers for all rows that a peer does not hold."""
    d = g.devices
    tensor = p.slot_tensor[slot]
    if slot < len(g.model_inputs):
        fetch_gaps(g, w, slot, tensor, peer, task, first, last, d, 0, 0, NEVER)
    elif whole:
        if w.held_count[slot, peer] > 0:
            return
        part = _whole_source(g, w, slot, tail)
        _send(g, w, tensor, 1, g.part_device[part], w.owner[slot, part].task, peer, task)
    else:
        held = w.held_count[slot, peer]
        if held == 1 and w.held[slot, peer, 0].first <= first and last <= w.held[slot, peer, 0].last:
            return
        for part in range(len(g.part_device)):
            a, b = w.owner[slot, part].first, w.owner[slot, part].last
            if a < last and b > first and a < b:
                source, maker = g.part_device[part], w.owner[slot, part].task
                fetch_gaps(g, w, slot, tensor, peer, task, first, last, source, maker, a, b)
    hold(w, slot, peer, first, last)


@internal
def _whole_source(g: Packed, w: Work, slot: int, tail: int) -> int:
    """The first part to run that makes a whole tensor, of the tail's device if one of its does."""
    found = -1
    for turn in range(len(g.run_order)):
        part = g.run_order[turn]
        if w.owner[slot, part].last != 0:
            if g.part_device[part] == tail:
                return int(part)
            if found < 0:
                found = part
    return int(found)


@inlined
def fetch_gaps(
    g: Packed,
    w: Work,
    slot: int,
    tensor: int,
    peer: int,
    task: int,
    first: int,
    last: int,
    source: int,
    maker: int,
    a: int,
    b: int,
) -> None:
    """Sends, out of rows [a, b) of a source, what is wanted and not held."""
    at = first
    for k in range(w.held_count[slot, peer] + 1):
        stop, resume = last, last
        if k < w.held_count[slot, peer]:
            stop, resume = w.held[slot, peer, k].first, w.held[slot, peer, k].last
        rows = min(stop, b, last) - max(at, a)
        if rows > 0:
            _send(g, w, tensor, rows, source, maker, peer, task)
        at = max(at, resume)


@inlined
def _send(g: Packed, w: Work, tensor: int, rows: int, source: int, maker: int, peer: int, task: int) -> None:
    sent = w.counts[1]
    if sent >= len(w.sent):
        w.counts[2] = 1
        return
    w.counts[1] = sent + 1
    w.sent[sent].source = source
    w.sent[sent].to = peer
    w.sent[sent].task = task
    w.sent[sent].bytes = rows * g.tensor[tensor].sent_row + g.tensor[tensor].sent_beside
    if g.tensor[tensor].rounded > 0.0:
        w.task[maker].seconds += g.device[source].round_s * rows * g.tensor[tensor].rounded
        w.task[task].seconds += g.device[peer].restore_s * rows * g.tensor[tensor].rounded
    w.sent[sent].next = -1
    w.task[task].missing += 1
    if w.task[maker].sends < 0:
        w.task[maker].sends = sent
    else:
        w.sent[w.task[maker].last_send].next = sent
    w.task[maker].last_send = sent


@inlined
def hold(w: Work, slot: int, peer: int, first: int, last: int) -> None:
    """Adds rows to those that a peer holds; ranges stay apart and in order."""
    count = w.held_count[slot, peer]
    kept = 0
    at = 0  # how many lie before the new range
    for k in range(count):
        a, b = w.held[slot, peer, k].first, w.held[slot, peer, k].last
        if b < first or a > last:
            w.held[slot, peer, kept].first, w.held[slot, peer, kept].last = a, b
            kept += 1
            at += b < first
        else:
            first, last = min(first, a), max(last, b)
    if kept == HELD:
        w.counts[2] = 1
        return
    for k in range(kept, at, -1):
        w.held[slot, peer, k].first = w.held[slot, peer, k - 1].first
        w.held[slot, peer, k].last = w.held[slot, peer, k - 1].last
    w.held[slot, peer, at].first, w.held[slot, peer, at].last = first, last
    w.held_count[slot, peer] = kept + 1
