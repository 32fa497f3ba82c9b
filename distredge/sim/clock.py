"""The evaluator's clock: tasks and transfers of one frame, on links shared max-min fairly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distredge.sim.jit import inlined, internal
from distredge.sim.pace import SLOWEST
from distredge.sim.packed import Packed
from distredge.sim.records import Floats, Records

if TYPE_CHECKING:
    from distredge.sim.work import Work

FASTEST = 1e18
SPREAD = 0x1E3779B97F4A7C15
"""Odd; a product with it is as good as random in its high bits."""


@inlined
def run_clock(g: Packed, w: Work, limit_s: float) -> float:
    """When the last transfer to the requester has arrived; fills `task_end`.

    Args:
        g: the network.
        w: tasks and transfers, from `price`.
        limit_s: give up and return infinity once it is known to be later than this.
    """
    d = g.devices
    peers = d + 1
    for pair in range(peers * peers):
        w.line[pair] = -1
    for peer in range(peers):
        w.peer[peer].flows_up = 0
        w.peer[peer].flows_down = 0
    for device in range(d):
        w.device[device].free = 0.0
        w.device[device].pace = 1.0
        _next_task(g, w, device, w.device[device].first)
    flows = _start(w, w.task[0].sends, peers, 0, 0.0)
    now = _share(g, w, flows, peers, 0.0)
    if g.slowed:
        _slow(g, w, flows, 0.0)
    for device in range(d):
        now = min(now, w.device[device].end)
    answered = 0.0
    while now < np.inf:
        if now > limit_s:
            return np.inf
        stale = False
        then = np.inf
        flow = 0
        while flow < flows:
            if w.flow[flow].end > now:
                then = min(then, w.flow[flow].end)
                flow += 1
                continue
            sent = w.flow[flow].sent
            source, target = w.flow[flow].source, w.flow[flow].target
            arrival = now + g.overhead_s[source, target]
            if target == d:
                answered = max(answered, arrival)
            else:
                task = w.sent[sent].task
                w.task[task].ready = max(w.task[task].ready, arrival)
                w.task[task].missing -= 1
                if w.task[task].missing == 0 and w.device[target].task == task:
                    _begin(g, w, target, task)
            behind = w.sent[sent].next
            if behind >= 0:
                w.flow[flow].sent = behind
                w.flow[flow].left = w.sent[behind].bytes
                w.flow[flow].since = now
                w.flow[flow].end = now + w.sent[behind].bytes / w.flow[flow].rate
                then = min(then, w.flow[flow].end)
                flow += 1
            else:
                w.line[source * peers + target] = -1
                w.peer[source].flows_up -= 1
                w.peer[target].flows_down -= 1
                flows -= 1
                w.flow[flow].source = w.flow[flows].source
                w.flow[flow].target = w.flow[flows].target
                w.flow[flow].sent = w.flow[flows].sent
                w.flow[flow].left = w.flow[flows].left
                w.flow[flow].since = w.flow[flows].since
                w.flow[flow].rate = w.flow[flows].rate
                w.flow[flow].end = w.flow[flows].end
                shared = w.peer[source].flows_up + w.peer[target].flows_down > 0
                stale = stale or shared or g.total < FASTEST
        for device in range(d):
            if w.device[device].end <= now:
                task = w.device[device].task
                w.task[task].end = now
                w.device[device].free = now
                _next_task(g, w, device, w.task[task].next)
                before = flows
                flows = _start(w, w.task[task].sends, peers, flows, now)
                stale = stale or flows > before
        if stale and flows > 0:
            then = _share(g, w, flows, peers, now)
        if g.slowed:
            _slow(g, w, flows, now)
        for device in range(d):
            then = min(then, w.device[device].end)
        now = then
    return answered


@inlined
def _next_task(g: Packed, w: Work, device: int, task: int) -> None:
    w.device[device].task = task
    w.device[device].end = np.inf
    if task >= 0 and w.task[task].missing == 0:
        _begin(g, w, device, task)


@inlined
def _begin(g: Packed, w: Work, device: int, task: int) -> None:
    """A device's present task has all that it needs, or will have when its last message is in."""
    begin = max(w.device[device].free, w.task[task].ready)
    w.device[device].end = begin + w.task[task].seconds
    if g.slowed:
        w.device[device].since = begin
        w.device[device].left = w.task[task].seconds
        w.device[device].end = begin + w.task[task].seconds / w.device[device].pace


@internal
def _slow(g: Packed, w: Work, flows: int, now: float) -> None:
    """Bytes that leave and come take processor time from what a device computes."""
    for device in range(g.devices):
        lost = 0.0
        for flow in range(flows):
            if w.flow[flow].source == device:
                lost += g.cost[device, 0] * w.flow[flow].rate
            if w.flow[flow].target == device:
                lost += g.cost[device, 1] * w.flow[flow].rate
        pace = max(SLOWEST, 1.0 - lost)
        old = w.device[device].pace
        if pace == old:
            continue
        w.device[device].pace = pace
        if w.device[device].end < np.inf:
            if w.device[device].since < now:
                w.device[device].left -= old * (now - w.device[device].since)
                w.device[device].since = now
            w.device[device].end = w.device[device].since + w.device[device].left / pace


@inlined
def _start(w: Work, sent: int, peers: int, flows: int, now: float) -> int:
    """Queues transfers, linked by `sent_next`, which from then on links those of one connection."""
    while sent >= 0:
        behind = w.sent[sent].next
        w.sent[sent].next = -1
        source, target = w.sent[sent].source, w.sent[sent].to
        pair = source * peers + target
        last = w.line[pair]
        w.line[pair] = sent
        if last >= 0:
            w.sent[last].next = sent
        else:
            w.flow[flows].source = source
            w.flow[flows].target = target
            w.flow[flows].sent = sent
            w.flow[flows].left = w.sent[sent].bytes
            w.flow[flows].since = now
            w.flow[flows].rate = 0.0
            w.flow[flows].end = np.inf
            w.peer[source].flows_up += 1
            w.peer[target].flows_down += 1
            flows += 1
        sent = behind
    return flows


@inlined
def _share(g: Packed, w: Work, flows: int, peers: int, now: float) -> float:
    """Gives every connection its max-min fair rate; returns when the first message ends."""
    if flows == 1:
        source, target = w.flow[0].source, w.flow[0].target
        w.flow[0].wanted = min(g.up[source, 1], g.down[target, 1], g.total)
    elif g.total < FASTEST or not _share_equally(g, w, flows, peers):
        _share_as_before(g, w, flows, peers)
    first = np.inf
    for flow in range(flows):
        rate, old = w.flow[flow].wanted, w.flow[flow].rate
        if rate != old:
            left = max(0.0, w.flow[flow].left - old * (now - w.flow[flow].since))
            w.flow[flow].left = left
            w.flow[flow].since = now
            w.flow[flow].rate = rate
            w.flow[flow].end = now + left / rate
        first = min(first, w.flow[flow].end)
    return first


@inlined
def _share_equally(g: Packed, w: Work, flows: int, peers: int) -> bool:
    """Equal shares of each link; whether they are max-min fair: mostly every link that limits a connection
    limits all of its connections."""
    for peer in range(peers):
        w.peer[peer].equal_up = 0
        w.peer[peer].equal_down = 0
    for flow in range(flows):
        source, target = w.flow[flow].source, w.flow[flow].target
        up = g.up[source, w.peer[source].flows_up]
        down = g.down[target, w.peer[target].flows_down]
        w.flow[flow].wanted = min(up, down)
        if up <= down:
            w.peer[source].equal_up += 1
        if down <= up:
            w.peer[target].equal_down += 1
    fair = True
    for flow in range(flows):
        source, target = w.flow[flow].source, w.flow[flow].target
        all_up = w.peer[source].equal_up == w.peer[source].flows_up
        all_down = w.peer[target].equal_down == w.peer[target].flows_down
        fair = fair and (all_up or all_down)
    return fair


@inlined
def _share_as_before(g: Packed, w: Work, flows: int, peers: int) -> None:
    """Rates depend only on which connections are busy, and the same few sets come again and again."""
    busy = 0
    for flow in range(flows):
        busy ^= w.code[w.flow[flow].source * peers + w.flow[flow].target]
    row = (busy * SPREAD >> 40) & (len(w.known) - 1)
    if w.known[row] == busy:
        for flow in range(flows):
            w.flow[flow].wanted = w.rates[row, w.flow[flow].source * peers + w.flow[flow].target]
        return
    _fill(g.up, g.down, g.total, w.peer, w.flow, flows, peers)
    w.known[row] = busy
    for flow in range(flows):
        w.rates[row, w.flow[flow].source * peers + w.flow[flow].target] = w.flow[flow].wanted


@internal
def _fill(
    up: Floats, down: Floats, shared: float, peer_of: Records, flow_of: Records, flows: int, peers: int
) -> None:
    """Progressive filling: links that limit all of their open flows settle them; again with what is left."""
    for peer in range(peers):
        peer_of[peer].left_up, peer_of[peer].left_down = up[peer, 1], down[peer, 1]
        peer_of[peer].open_up, peer_of[peer].open_down = peer_of[peer].flows_up, peer_of[peer].flows_down
    for flow in range(flows):
        flow_of[flow].open = 1
    remaining = flows
    while remaining > 0:
        for peer in range(peers):
            peer_of[peer].equal_up = peer_of[peer].equal_down = 0
        each = shared / remaining if shared < FASTEST else np.inf
        by_all = 0
        for flow in range(flows):
            if flow_of[flow].open == 1:
                source, target = flow_of[flow].source, flow_of[flow].target
                from_up = peer_of[source].left_up / peer_of[source].open_up
                from_down = peer_of[target].left_down / peer_of[target].open_down
                rate = min(from_up, from_down, each)
                flow_of[flow].wanted = max(rate, 1e-9)
                peer_of[source].equal_up += from_up == rate
                peer_of[target].equal_down += from_down == rate
                by_all += each == rate
        whole = by_all == remaining
        for flow in range(flows):
            if flow_of[flow].open == 1:
                source, target = flow_of[flow].source, flow_of[flow].target
                all_up = peer_of[source].equal_up == peer_of[source].open_up
                all_down = peer_of[target].equal_down == peer_of[target].open_down
                if whole or all_up or all_down:
                    flow_of[flow].open = 2
        for flow in range(flows):
            if flow_of[flow].open == 2:
                source, target, rate = flow_of[flow].source, flow_of[flow].target, flow_of[flow].wanted
                flow_of[flow].open = 0
                remaining -= 1
                shared -= rate
                peer_of[source].open_up -= 1
                peer_of[target].open_down -= 1
                peer_of[source].left_up -= rate
                peer_of[target].left_down -= rate
