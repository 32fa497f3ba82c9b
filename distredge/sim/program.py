"""A partition scheme laid out for the evaluator; made in microseconds, so a search may move cuts freely."""

from __future__ import annotations

from itertools import count
from typing import NamedTuple

import numpy as np

from distredge.sim.jit import compiled, internal
from distredge.sim.packed import MAPPED, SAME, SYNC, Packed
from distredge.sim.records import Ints, Records, records

TO_STEP, TO_READ, TO_BOTH = 0, 1, 2
"""Where the rows that an edge needs count: a step of the volume, a read from outside, or both."""


_PROGRAMS = count(1)
"""Numbers of programs: part of their layouts' numbers, so that scratch is never taken for that of another."""


class Program(NamedTuple):
    """Room for any scheme of one graph; `build_program` fills it.

    A *step* is some nodes of one volume that compute the same rows, whatever the strategy (a convolution and
    the Relu behind it); steps are kept last first, as the rules are applied. A *read* is a tensor that a
    stage takes from outside itself. A *pub* is a tensor that a stage gives to others. A *slot* numbers a
    tensor that crosses a border. A *share* is a height at which the volume's rows are cut. A field named
    after one of these, in the plural, says where the entries of a volume or a step begin; they end where
    those of the next begin.
    """

    counts: Ints  # slots; volumes; number of the last layout, no two programs give the same
    slot_tensor: Ints
    volume: Records
    """rows, stages, leads (1: nothing in it has rows, so its biggest part computes it), chain (1: each step
    reads the next one's rows, by a monotone rule, and nothing else); grain: rows by which a bound must move
    to move any cut; reduces (1: devices share a reduction, so lanes are joined); alone (1: what a device
    computes and reads depends on no other volume's bounds); layout: a number, new with every build; end,
    begin: its last node and its first place in `body`, as it was built; steps, reads, pubs, shares, kepts,
    stage_at (its stages among those of all), slots."""
    share: Records
    """rows, quantum"""
    step: Records
    """stage; whole (1: makes a whole output of the volume); reduces: share of the tensor reduced, or -1;
    owns, edges, costs; member: its first node."""
    own: Records
    """share, partial: rows that a device owes to others."""
    edge: Records
    """kind, first, last as in `Packed`; way; step; read; slot of a tensor of which all rows are read, else
    -1, and its rows (-1: as many as devices contribute)."""
    cost: Ints  # offset in `Packed.seconds`
    read: Records
    """stage, tensor, slot (-1: made on the same device, by an earlier stage), whole, bytes of a row"""
    pub: Records
    """slot, step, share (-1 for a whole tensor), partial, bytes of a row"""
    kept: Records
    """Tensors that a task gives though only its own device reads them, for the boundary cost: step, bytes
    of a row, readers."""
    kept_reader: Ints  # kept only where one of these steps does not run; none: always
    node: Records
    """scratch: volume, stage, step, next (of the same step)"""
    tensor: Records
    """slot; synced (1: a stage of its own volume reads all of its rows)"""


def new_program(packed: Packed, volumes: int) -> Program:
    """Room for any scheme of up to so many volumes."""
    nodes, tensors, edges = len(packed.node), len(packed.tensor), len(packed.edge) + 1
    return Program(
        counts=np.array([0, 0, next(_PROGRAMS) << 40], dtype=np.int64),
        slot_tensor=np.zeros(tensors, dtype=np.int64),
        volume=records(
            volumes + 1,
            "rows stages leads chain grain reduces alone layout end begin "
            "steps reads pubs shares kepts stage_at slots",
        ),
        share=records(tensors + nodes, "rows quantum"),
        step=records(nodes + 1, "stage whole reduces owns edges costs member"),
        own=records(tensors, "share partial"),
        edge=records(edges, "kind way step read first last slot rows"),
        cost=np.zeros(nodes, dtype=np.int64),
        read=records(edges, "stage tensor slot whole", "bytes"),
        pub=records(tensors, "slot step share partial", "bytes"),
        kept=records(tensors + 1, "step readers", "bytes"),
        kept_reader=np.zeros(edges, dtype=np.int64),
        node=records(nodes, "volume stage step next"),
        tensor=records(tensors, "slot synced"),
    )


@compiled
def build_program(g: Packed, ends: Ints, volumes: int, p: Program) -> None:
    """Fills a program; the volumes that it has in common with the last one, from the first on, stay.

    Args:
        g: the graph; of one program always the same.
        ends: node that each volume ends with (the producer of its cut); the last volume's is any number
            behind all nodes. Rising.
        volumes: how many.
        p: room for it.
    """
    same = 0
    while same < min(volumes, p.counts[1]) and p.volume[same].end == ends[same]:
        same += 1
    if same == volumes == p.counts[1]:
        return
    if same == 0:
        _clear(g, p)
    begin = int(p.volume[same].begin)
    p.counts[0] = p.volume[same].slots
    for k in range(begin, len(g.body)):
        node = g.body[k]
        p.node[node].volume = -1
        for at in range(g.node[node].outs, g.node[node + 1].outs):
            p.tensor[g.out_tensor[at]].synced = 0
    for v in range(same, volumes):
        stop = begin
        while stop < len(g.body) and g.body[stop] <= ends[v]:
            p.node[g.body[stop]].volume = v
            stop += 1
        p.volume[v].begin, p.volume[v].end = begin, ends[v]
        p.volume[v].slots = p.counts[0]
        p.counts[2] += 1
        p.volume[v].layout = p.counts[2]
        _build_volume(g, p, v, begin, stop, ends[v])
        begin = stop
    p.counts[1] = volumes
    for tensor in g.tail_makes:
        _slot(p, tensor)


@internal
def _clear(g: Packed, p: Program) -> None:
    """A program without volumes."""
    p.counts[0] = 0
    for tensor in g.model_inputs:
        _slot(p, tensor)
    for node in range(len(g.node)):
        p.node[node].volume = -1
    for tensor in range(len(g.tensor)):
        p.tensor[tensor].synced = 0
    p.volume[0].begin = 0
    p.volume[0].slots = p.counts[0]
    p.volume[0].steps = 0
    p.volume[0].reads = 0
    p.volume[0].pubs = 0
    p.volume[0].shares = 0
    p.volume[0].kepts = 0
    p.volume[0].stage_at = 0
    p.step[0].owns = 0
    p.step[0].edges = 0
    p.step[0].costs = 0
    p.kept[0].readers = 0


@internal
def _slot(p: Program, tensor: int) -> int:
    slot = int(p.counts[0])
    p.tensor[tensor].slot = slot
    p.slot_tensor[slot] = tensor
    p.counts[0] += 1
    return slot


@internal
def _build_volume(g: Packed, p: Program, v: int, begin: int, stop: int, end: int) -> None:
    _find_stages(g, p, v, begin, stop)
    p.volume[v].rows = _reference_rows(g, p, v, begin, stop, end)
    _find_steps(g, p, v, begin, stop, end)
    p.volume[v + 1].reads = p.volume[v].reads
    p.volume[v + 1].pubs = p.volume[v].pubs
    p.volume[v + 1].shares = p.volume[v].shares
    p.volume[v + 1].kepts = p.volume[v].kepts
    p.volume[v].leads = 1
    p.volume[v].reduces = 0
    p.volume[v].stages = 1
    for step in range(p.volume[v].steps, p.volume[v + 1].steps):
        p.step[step + 1].owns = p.step[step].owns
        p.step[step + 1].edges = p.step[step].edges
        p.step[step + 1].costs = p.step[step].costs
        p.step[step].whole = 0
        p.step[step].reduces = -1
        node = p.step[step].member
        p.step[step].stage = p.node[node].stage
        p.volume[v].stages = max(p.volume[v].stages, p.node[node].stage + 1)
        while node >= 0:
            if g.node[node].reduces >= 0:
                p.step[step].reduces = _share(g, p, v, g.node[node].reduces)
                p.volume[v].reduces = 1
            if g.node[node].seconds_at >= 0:
                p.cost[p.step[step + 1].costs] = g.node[node].seconds_at
                p.step[step + 1].costs += 1
            for at in range(g.node[node].outs, g.node[node + 1].outs):
                tensor = g.out_tensor[at]
                if g.tensor[tensor].last_use > end or p.tensor[tensor].synced == 1:
                    _publish(g, p, v, step, tensor, end)
                else:
                    _keep(g, p, v, step, node, tensor)
            for at in range(g.node[node].edges, g.node[node + 1].edges):
                before = g.tensor[g.edge[at].tensor].producer
                inside = before >= 0 and p.node[before].volume == v
                if not (inside and p.node[before].step == step):
                    _edge(g, p, v, step, at, p.node[node].stage, inside)
            node = p.node[node].next
    # only now do all tensors of the volume have their slots
    for read in range(p.volume[v].reads, p.volume[v + 1].reads):
        if p.read[read].slot >= 0:
            p.read[read].slot = p.tensor[p.read[read].tensor].slot
    for at in range(p.step[p.volume[v].steps].edges, p.step[p.volume[v + 1].steps].edges):
        if p.edge[at].slot >= 0:
            p.edge[at].slot = p.tensor[p.edge[at].slot].slot
    p.volume[v].chain = _is_chain(p, v)
    p.volume[v].grain = _grain(p, v)
    p.volume[v].alone = _is_alone(p, v)
    p.volume[v + 1].stage_at = p.volume[v].stage_at + p.volume[v].stages


@internal
def _grain(p: Program, v: int) -> int:
    """The least step of a bound that may move a cut of any tensor."""
    rows = p.volume[v].rows
    grain = rows
    for share in range(p.volume[v].shares, p.volume[v + 1].shares):
        grain = min(grain, rows * p.share[share].quantum // max(1, p.share[share].rows))
    return int(max(1, grain))


@internal
def _is_alone(p: Program, v: int) -> int:
    """Whether nothing of a volume depends on how many devices have contributed to a tensor."""
    for at in range(p.step[p.volume[v].steps].edges, p.step[p.volume[v + 1].steps].edges):
        if p.edge[at].kind == SYNC and p.edge[at].rows < 0:
            return 0
    return 1


@internal
def _is_chain(p: Program, v: int) -> int:
    """Whether the rows of a volume's only tensor are pulled through one step after the other."""
    begin, end = p.volume[v].steps, p.volume[v + 1].steps
    pub = p.volume[v].pubs
    if end == begin or p.volume[v].stages > 1 or p.volume[v + 1].pubs - pub != 1 or p.pub[pub].step != begin:
        return 0
    if p.pub[pub].share < 0 or p.pub[pub].partial == 1 or p.volume[v + 1].kepts > p.volume[v].kepts:
        return 0
    for step in range(begin, end):
        at = p.step[step].edges
        if p.step[step + 1].edges - at != 1 or p.step[step].whole == 1 or p.step[step].reduces >= 0:
            return 0
        if p.edge[at].kind != MAPPED and p.edge[at].kind != SAME:
            return 0
        inside = p.edge[at].way == TO_STEP and p.edge[at].step == step + 1
        if not (inside if step < end - 1 else p.edge[at].way == TO_READ):
            return 0
    return 1


@internal
def _find_stages(g: Packed, p: Program, v: int, begin: int, stop: int) -> None:
    """Stages, and which tensors a stage of the volume reads whole; see `distredge.plan.demand`."""
    for k in range(begin, stop):
        node = g.body[k]
        stage = 0
        for at in range(g.node[node].edges, g.node[node + 1].edges):
            tensor = g.edge[at].tensor
            before = g.tensor[tensor].producer
            if before >= 0 and p.node[before].volume == v:
                sync = 1 if g.edge[at].kind == SYNC else 0
                stage = max(stage, p.node[before].stage + sync)
                if sync:
                    p.tensor[tensor].synced = 1
        p.node[node].stage = stage


@internal
def _reference_rows(g: Packed, p: Program, v: int, begin: int, stop: int, end: int) -> int:
    """Rows of the volume's reference; see `distredge.plan.volumes`."""
    outputs = inner = inputs = 0
    for k in range(begin, stop):
        node = g.body[k]
        if g.node[node].reduces >= 0:
            inner = max(inner, g.tensor[g.node[node].reduces].rows)
        for at in range(g.node[node].outs, g.node[node + 1].outs):
            tensor = g.out_tensor[at]
            if g.tensor[tensor].rowed == 1 and g.tensor[tensor].partial_of < 0:
                if g.tensor[tensor].last_use > end:
                    outputs = max(outputs, g.tensor[tensor].rows)
                if p.tensor[tensor].synced == 1:
                    inner = max(inner, g.tensor[tensor].rows)
        for at in range(g.node[node].edges, g.node[node + 1].edges):
            tensor = g.edge[at].tensor
            before = g.tensor[tensor].producer
            outside = before < 0 or p.node[before].volume != v
            if outside and g.tensor[tensor].rowed == 1 and g.tensor[tensor].partial_of < 0:
                inputs = max(inputs, g.tensor[tensor].rows)
    if outputs > 0:
        return outputs
    if inner > 0:
        return inner
    return max(inputs, 1)


@internal
def _find_steps(g: Packed, p: Program, v: int, begin: int, stop: int, end: int) -> None:
    """Groups nodes that compute the same rows; the last step of the volume comes first."""
    steps = p.volume[v].steps
    for k in range(stop - 1, begin - 1, -1):
        node = g.body[k]
        behind = _same_rows_as(g, p, v, node, end)
        if behind >= 0:
            step = p.node[behind].step
            p.node[node].next = p.step[step].member
        else:
            step = steps
            steps += 1
            p.node[node].next = -1
        p.step[step].member = node
        p.node[node].step = step
    p.volume[v + 1].steps = steps


@internal
def _same_rows_as(g: Packed, p: Program, v: int, node: int, end: int) -> int:
    """The one node that reads this one's output, if it always reads just the rows that it makes; or -1."""
    if g.node[node + 1].outs - g.node[node].outs != 1 or g.node[node].reduces >= 0:
        return -1
    tensor = g.out_tensor[g.node[node].outs]
    if g.tensor[tensor].last_use > end or p.tensor[tensor].synced == 1:
        return -1
    if g.tensor[tensor + 1].readers - g.tensor[tensor].readers != 1:
        return -1
    reader = int(g.reader[g.tensor[tensor].readers])
    if g.node[reader].reduces >= 0 or p.node[reader].stage != p.node[node].stage:
        return -1
    for at in range(g.node[reader].edges, g.node[reader + 1].edges):
        if g.edge[at].tensor == tensor and g.edge[at].kind != SAME:
            return -1
    return reader


@internal
def _share(g: Packed, p: Program, v: int, tensor: int) -> int:
    """The number of the height at which a tensor is cut, old or new."""
    end = int(p.volume[v + 1].shares)
    for at in range(p.volume[v].shares, end):
        if p.share[at].rows == g.tensor[tensor].rows and p.share[at].quantum == g.tensor[tensor].quantum:
            return at
    p.share[end].rows = g.tensor[tensor].rows
    p.share[end].quantum = g.tensor[tensor].quantum
    p.volume[v + 1].shares = end + 1
    return end


@internal
def _publish(g: Packed, p: Program, v: int, step: int, tensor: int, end: int) -> None:
    """A tensor that others read: devices own rows of it."""
    pub = p.volume[v + 1].pubs
    p.volume[v + 1].pubs = pub + 1
    p.pub[pub].slot = _slot(p, tensor)
    p.pub[pub].step = step
    p.pub[pub].bytes = g.tensor[tensor].row_bytes
    p.pub[pub].share = -1
    p.pub[pub].partial = 0
    if g.tensor[tensor].rowed == 1:
        p.volume[v].leads = 0
        partial = g.tensor[tensor].partial_of >= 0
        share = _share(g, p, v, g.tensor[tensor].partial_of if partial else tensor)
        p.pub[pub].share = share
        p.pub[pub].partial = 1 if partial else 0
        own = p.step[step + 1].owns
        p.own[own].share = share
        p.own[own].partial = 1 if partial else 0
        p.step[step + 1].owns = own + 1
    elif g.tensor[tensor].last_use > end:
        p.step[step].whole = 1


@internal
def _keep(g: Packed, p: Program, v: int, step: int, node: int, tensor: int) -> None:
    """A tensor for the device's own use: its task gives it if something outside the task may read it."""
    first, last = g.tensor[tensor].readers, g.tensor[tensor + 1].readers
    if first == last:
        return
    later = False
    for at in range(first, last):
        later = later or p.node[g.reader[at]].stage != p.node[node].stage
    if not later and last - first == 1 and g.node[node + 1].outs - g.node[node].outs == 1:
        return
    kept = p.volume[v + 1].kepts
    p.volume[v + 1].kepts = kept + 1
    p.kept[kept].step = step
    p.kept[kept].bytes = g.tensor[tensor].row_bytes
    p.kept[kept + 1].readers = p.kept[kept].readers
    if not later:
        for at in range(first, last):
            p.kept_reader[p.kept[kept + 1].readers] = p.node[g.reader[at]].step
            p.kept[kept + 1].readers += 1


@internal
def _edge(g: Packed, p: Program, v: int, step: int, at: int, stage: int, inside: bool) -> None:
    tensor = g.edge[at].tensor
    kind = g.edge[at].kind
    to = p.step[step + 1].edges
    p.step[step + 1].edges = to + 1
    p.edge[to].kind = kind
    p.edge[to].first = g.edge[at].first
    p.edge[to].last = g.edge[at].last
    p.edge[to].slot = tensor if kind == SYNC else -1
    p.edge[to].rows = -1 if g.tensor[tensor].partial_of >= 0 else g.tensor[tensor].rows
    p.edge[to].way = TO_READ
    local = inside and kind != SYNC
    if local:
        before = g.tensor[tensor].producer
        p.edge[to].step = p.node[before].step
        if p.node[before].stage == stage:
            p.edge[to].way = TO_STEP
            return
        p.edge[to].way = TO_BOTH
    read, end = p.volume[v].reads, p.volume[v + 1].reads
    while read < end and (p.read[read].stage != stage or p.read[read].tensor != tensor):
        read += 1
    if read == end:
        p.volume[v + 1].reads = end + 1
        p.read[read].stage = stage
        p.read[read].tensor = tensor
        p.read[read].slot = -1
        p.read[read].whole = 1 - g.tensor[tensor].rowed
        p.read[read].bytes = g.tensor[tensor].row_bytes
    if not local:
        p.read[read].slot = 0  # numbered when the volume is complete
    p.edge[to].read = read
