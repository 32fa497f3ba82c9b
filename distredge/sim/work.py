"""The evaluator's scratch: made once, used for any number of strategies."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from distredge.sim.packed import Packed
from distredge.sim.records import Floats, Ints, Records, records

HELD = 8
"""Separate ranges of one tensor that a device may hold; more, and the compiled evaluator gives up."""

KNOWN = 256
"""Sets of busy connections whose rates are kept; a power of two."""


class Work(NamedTuple):
    """Scratch of evaluations on one network, and what of the last one may serve the next: rows and seconds of
    a volume are found anew only if its layout or its bounds are not those of `seen`. So evaluations of one
    program after the other are quickest in a scratch of its own.

    Peer `devices` is the requester, and task 0 stands for what it does.
    """

    counts: Ints  # tasks; transfers; gave up (0 or 1); program that `seen` is about
    seen: Ints  # [volume, part + 1] layout, then bounds, for which `bounds` to `stage_s` hold
    bounds: Ints  # [share, part + 1]
    step: Records
    """first, last: rows that one part computes"""
    read: Records
    """[read, part] first, last: rows wanted"""
    pub: Records
    """[pub, part] first, last: rows made"""
    stage_s: Floats  # [stage of all volumes, part]; below 0: nothing runs
    height: Ints  # [slot]
    owner: Records
    """[slot, part] first, last: rows owned, (0, 1) for each that has a whole tensor; task: their maker"""
    held_count: Ints  # [slot, peer]
    held: Records
    """[slot, peer, range] first, last"""
    device: Records
    """first, last, task: its first, last and present one; free, end: when the present one may begin, ends;
    left, since, pace: of its seconds, what is left, by when, and how fast it goes on"""
    task: Records
    """on: its device; volume; missing: transfers not yet there; next: on the same device; sends, last_send;
    seconds, ready, end"""
    sent: Records
    """source, to, task: that waits; next: of the same maker, then on the same connection; bytes"""
    line: Ints  # [source * peers + target] last transfer in it
    code: Ints  # [source * peers + target] a bit each; of more than 7 devices, random bits
    known: Ints  # [row] exclusive or of the codes of busy connections, whose rates are kept there
    rates: Floats  # [row, source * peers + target] bytes a second
    flow: Records
    """Connections with something to send: source, target, sent; open, wanted: while shares are found; left,
    since, rate, end"""
    peer: Records
    """flows_up, flows_down; while shares are found: those open, those that this link limits, the rate left"""


def new_work(g: Packed, volumes: int) -> Work:
    """Room for evaluating any scheme of so many volumes."""
    d, peers, parts = g.devices, g.devices + 1, len(g.part_device)
    nodes, slots, reads = len(g.node), len(g.tensor) + 1, len(g.edge) + 1
    tasks = (min(volumes, nodes) + nodes) * parts + 2
    sends = max(1024, min(4 * reads * parts * peers, 200_000))
    return Work(
        counts=np.zeros(4, dtype=np.int64),
        seen=np.zeros((volumes, parts + 1), dtype=np.int64),
        bounds=np.zeros((slots + nodes, parts + 1), dtype=np.int64),
        step=records(nodes + 1, "first last"),
        read=records((reads, parts), "first last"),
        pub=records((slots, parts), "first last"),
        stage_s=np.zeros((nodes + volumes + 1, parts)),
        height=np.zeros(slots, dtype=np.int64),
        owner=records((slots, parts), "first last task"),
        held_count=np.zeros((slots, peers), dtype=np.int64),
        held=records((slots, peers, HELD), "first last"),
        device=records(d, "first last task", "free end left since pace"),
        task=records(tasks, "on volume missing next sends last_send", "seconds ready end"),
        sent=records(sends, "source to task next", "bytes"),
        line=np.zeros(peers * peers, dtype=np.int64),
        code=_codes(peers),
        known=np.zeros(KNOWN, dtype=np.int64),
        rates=np.zeros((KNOWN, peers * peers)),
        flow=records(peers * peers, "source target sent open", "left since rate end wanted"),
        peer=records(peers, "flows_up flows_down open_up open_down equal_up equal_down", "left_up left_down"),
    )


def _codes(peers: int) -> Ints:
    """One number per connection, such that no two sets of connections have the same exclusive or (with
    random ones: as good as never)."""
    pairs = peers * peers
    if pairs <= 63:
        return 1 << np.arange(pairs, dtype=np.int64)
    return np.random.default_rng(0).integers(1, 1 << 62, pairs, dtype=np.int64)
