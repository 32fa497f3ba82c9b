"""The evaluator's clock: tasks and transfers of one frame, on links shared max-min fairly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distredge.sim.jit import inlined, internal
from distredge.sim.packed import Packed
from distredge.sim.records import Floats, Records

if TYPE_CHECKING:
    from distredge.sim.work import Work

FASTEST = 1e18


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
        _next_task(w, device, w.device[device].first)
    flows = _start(w, w.task[0].sends, peers, 0, 0.0)
    if flows > 0:
        _share(g, w, flows, peers, 0.0)
    answered = 0.0
    while True:
        now = np.inf
        for flow in range(flows):
            now = min(now, w.flow[flow].end)
        for device in range(d):
            now = min(now, w.device[device].end)
        if now == np.inf:
            return answered
        if now > limit_s:
            return np.inf
        stale = False
        flow = 0
        while flow < flows:
            if w.flow[flow].end > now:
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
                    w.device[target].end = (
                        max(w.device[target].free, w.task[task].ready) + w.task[task].seconds
                    )
            behind = w.sent[sent].next
            if behind >= 0:
                w.flow[flow].sent = behind
                w.flow[flow].left = w.sent[behind].bytes
                w.flow[flow].since = now
                w.flow[flow].end = now + w.sent[behind].bytes / w.flow[flow].rate
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
                stale = True
        for device in range(d):
            if w.device[device].end <= now:
                task = w.device[device].task
                w.task[task].end = now
                w.device[device].free = now
                _next_task(w, device, w.task[task].next)
                before = flows
                flows = _start(w, w.task[task].sends, peers, flows, now)
                stale = stale or flows > before
        if stale and flows > 0:
            _share(g, w, flows, peers, now)


@inlined
def _next_task(w: Work, device: int, task: int) -> None:
    w.device[device].task = task
    w.device[device].end = np.inf
    if task >= 0 and w.task[task].missing == 0:
        w.device[device].end = max(w.device[device].free, w.task[task].ready) + w.task[task].seconds


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
def _share(g: Packed, w: Work, flows: int, peers: int, now: float) -> None:
    """Max-min fair rates. Mostly each link's equal share is already that; only where not, fill step by step.

    Equal shares are max-min fair if every link that limits a flow limits all of its flows.
    """
    fits = g.total >= FASTEST
    if fits:
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
        for flow in range(flows):
            source, target = w.flow[flow].source, w.flow[flow].target
            all_up = w.peer[source].equal_up == w.peer[source].flows_up
            all_down = w.peer[target].equal_down == w.peer[target].flows_down
            fits = fits and (all_up or all_down)
    if not fits:
        _fill(g.up, g.down, g.total, w.peer, w.flow, flows, peers)
    for flow in range(flows):
        rate, old = w.flow[flow].wanted, w.flow[flow].rate
        if rate != old:
            left = max(0.0, w.flow[flow].left - old * (now - w.flow[flow].since))
            w.flow[flow].left = left
            w.flow[flow].since = now
            w.flow[flow].rate = rate
            w.flow[flow].end = now + left / rate


@internal
def _fill(
    up: Floats, down: Floats, shared: float, peer_of: Records, flow_of: Records, flows: int, peers: int
) -> None:
    """Progressive filling: the link with the smallest share left settles its flows, and so on."""
    for peer in range(peers):
        peer_of[peer].left_up, peer_of[peer].left_down = up[peer, 1], down[peer, 1]
        peer_of[peer].equal_up, peer_of[peer].equal_down = peer_of[peer].flows_up, peer_of[peer].flows_down
    total = shared
    remaining = flows
    for flow in range(flows):
        flow_of[flow].open = 1
    while remaining > 0:
        best, share = 2 * peers, np.inf
        if shared < FASTEST:
            share = total / remaining
        for peer in range(peers):
            if peer_of[peer].equal_up > 0:
                each = peer_of[peer].left_up / peer_of[peer].equal_up
                if each < share:
                    best, share = peer, each
            if peer_of[peer].equal_down > 0:
                each = peer_of[peer].left_down / peer_of[peer].equal_down
                if each < share:
                    best, share = peers + peer, each
        share = max(share, 1e-9)
        for flow in range(flows):
            if flow_of[flow].open == 0:
                continue
            source, target = flow_of[flow].source, flow_of[flow].target
            if best == 2 * peers or best == source or best == peers + target:
                flow_of[flow].open = 0
                remaining -= 1
                peer_of[source].equal_up -= 1
                peer_of[target].equal_down -= 1
                peer_of[source].left_up -= share
                peer_of[target].left_down -= share
                total -= share
                flow_of[flow].wanted = share
