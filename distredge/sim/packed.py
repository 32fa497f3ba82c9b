"""A planning problem as flat arrays, for the compiled evaluator.

The evaluator needs no table per volume. For output rows [a, b), a node needs rows [first[a], last[b]) of a
rowed input: nearly all row rules are monotone, and their two ends do not depend on each other. So two integer
tables per edge of the graph, made once, serve every partition scheme. (Mirrored padding is not monotone at
the edge; there each row is looked at.)
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distredge.cluster.network import Network
from distredge.graph.model import Graph
from distredge.graph.rows import RowRule, Rows
from distredge.plan.demand import Ownership, find_demand
from distredge.plan.execution import _item_bytes
from distredge.plan.strategy import SplitDecision, joined_ends, run_order
from distredge.plan.volumes import Volume, is_sync_read
from distredge.plan.wire import EXACT, ROUNDED, coding_of, sent_sizes
from distredge.sim.fluid import link_rates
from distredge.sim.records import Floats, Ints, Records, filled
from distredge.sim.tables import NodeTimes

WHOLE, SYNC, MAPPED, SAME, HULL = 0, 1, 2, 3, 4
"""How an edge is read: a whole tensor; all rows of a rowed one; rows by table; the same rows; the hull of
what each row needs."""
NOWHERE = 1 << 30
"""The first input row of an output row that needs none."""
NEVER = 1 << 40
"""The last use of a tensor that leaves the body of the graph."""


class Packed(NamedTuple):
    """The graph, the devices and the network. Peers are the devices and then the requester. A volume's rows
    are cut into parts, one per device or, with lanes, more.

    Nodes keep their numbers; tensors are those that are not constant, numbered anew. Node i has the edges
    `node[i].edges` to `node[i + 1].edges`, likewise its outputs and a tensor's readers.
    """

    devices: int
    part_device: Ints  # rising
    run_order: Ints  # of parts
    joined: Ints  # `joined_ends`
    body: Ints  # nodes that are not the tail's
    node: Records
    """edges, outs; reduces: the tensor that a partial reduction reads, or -1; seconds_at: offset in
    `seconds`, -1 where no device needs time."""
    edge: Records
    """tensor, kind, and the offsets in `maps` of first and last."""
    tensor: Records
    """rows, quantum, rowed, partial_of (-1), producer (-1: input), last_use (or NEVER), readers, row_bytes;
    sent_row, sent_beside: bytes on the wire of a row, and of a message beside its rows; rounded: bytes of a
    row that is rounded on the wire, or 0"""
    maps: NDArray[np.int32]
    out_tensor: Ints
    reader: Ints
    model_inputs: Ints
    model_outputs: Ints
    seconds: Floats  # [device, offset + rows]
    device: Records
    """fixed_s and s_per_byte of every task; tail_s; round_s, restore_s: for a byte that is rounded"""
    tail_runs: int
    tail_read: Records
    """tensor, first, last (-1: to its end)"""
    tail_makes: Ints  # outputs of the model
    tail_made_bytes: float
    up: Floats  # bytes a second, [peer, flows that share it]; [peer, 1] is the link's rate
    down: Floats
    total: float
    overhead_s: Floats  # [source, target]
    cost: Floats  # seconds that a byte takes from what a device computes meanwhile, [device, leaves or comes]
    slowed: int  # whether there are any


def pack(graph: Graph, times: Sequence[NodeTimes], network: Network, wire: str = EXACT) -> Packed | None:
    """Arrays for a graph, or None where a row rule is not of the form above."""
    names = [*graph.inputs, *(out for node in graph.nodes for out in node.outputs if out)]
    number = {name: at for at, name in enumerate(names)}
    tensors = [graph.tensors[name] for name in names]
    edges = _edges(graph, number)
    if edges is None:
        return None
    edge_at, edge, maps = edges
    out_at, out_tensor = _compressed([[number[o] for o in node.outputs if o] for node in graph.nodes])
    reader_at, reader = _compressed([list(graph.consumers.get(name, ())) for name in names])
    seconds, seconds_at = _seconds(times)
    nodes = range(len(graph.nodes))
    row_bytes = [_row_bytes(graph, name) for name in names]
    codings = [coding_of(graph, name, wire) for name in names]
    sent = [
        sent_sizes(graph.tensors[name], coding, size)
        for name, coding, size in zip(names, codings, row_bytes, strict=True)
    ]
    tail_read, tail_makes, tail_made_bytes, tail_s = _tail(graph, number, times)
    return Packed(
        devices=len(times),
        **_lanes(range(len(times))),
        body=_ints(i for i in nodes if i not in graph.tail),
        node=filled(
            {
                "edges": edge_at,
                "outs": out_at,
                "reduces": _ints(_reduced(graph, i, number) for i in nodes),
                "seconds_at": seconds_at,
            }
        ),
        edge=edge,
        tensor=filled(
            {
                "rows": _ints(t.rows for t in tensors),
                "quantum": _ints(t.quantum for t in tensors),
                "rowed": _ints(t.row_axis is not None for t in tensors),
                "partial_of": _ints(-1 if t.partial_of is None else number[t.partial_of] for t in tensors),
                "producer": _ints(graph.producer.get(name, -1) for name in names),
                "last_use": _ints(_last_use(graph, name) for name in names),
                "readers": reader_at,
            },
            {
                "row_bytes": row_bytes,
                "sent_row": [row for row, _ in sent],
                "sent_beside": [beside for _, beside in sent],
                "rounded": [
                    size if coding in ROUNDED else 0 for coding, size in zip(codings, row_bytes, strict=True)
                ],
            },
        ),
        maps=maps,
        out_tensor=out_tensor,
        reader=reader,
        model_inputs=_ints(number[name] for name in graph.inputs),
        model_outputs=_ints(number[name] for name in graph.outputs),
        seconds=seconds,
        device=filled(
            {},
            {
                "fixed_s": [t.fixed_s for t in times],
                "s_per_byte": [t.s_per_byte for t in times],
                "tail_s": tail_s,
                "round_s": [t.coding_s(wire)[0] for t in times],
                "restore_s": [t.coding_s(wire)[1] for t in times],
            },
        ),
        tail_runs=int(bool(len(tail_read) or len(tail_makes))),
        tail_read=tail_read,
        tail_makes=tail_makes,
        tail_made_bytes=tail_made_bytes,
        **_links(network),
    )


def repacked(packed: Packed, network: Network) -> Packed:
    """The same graph and devices on other links, in microseconds."""
    return packed._replace(**_links(network))


def with_lanes(packed: Packed, lanes: Sequence[int]) -> Packed:
    """The same problem for strategies with these lanes."""
    return packed._replace(**_lanes(lanes))


def _lanes(lanes: Sequence[int]) -> dict[str, Any]:
    return {
        "part_device": _ints(lanes),
        "run_order": _ints(run_order(lanes)),
        "joined": _ints(joined_ends(lanes)),
    }


def _links(network: Network) -> dict[str, Any]:
    up, down, total = link_rates(network)
    flows = np.arange(1, len(up) + 1)
    return {
        "up": _shares(up, flows),
        "down": _shares(down, flows),
        "total": total,
        "overhead_s": np.ascontiguousarray(network.overheads_s),
        "cost": network.costs_s_per_byte,
        "slowed": int(network.costs_s_per_byte.any()),
    }


def _shares(rates: Sequence[float], flows: Ints) -> Floats:
    each = np.zeros((len(rates), len(flows) + 1))
    each[:, 1:] = np.array(rates)[:, None] / flows
    return each


def _ints(values: Any) -> Ints:
    return np.array([int(value) for value in values], dtype=np.int64)


def _compressed(lists: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    at = np.zeros(len(lists) + 1, dtype=np.int64)
    at[1:] = np.cumsum([len(each) for each in lists])
    return at, _ints(value for each in lists for value in each)


def _reduced(graph: Graph, node: int, number: dict[str, int]) -> int:
    if graph.nodes[node].form != "partial":
        return -1
    source = graph.tensors[graph.nodes[node].outputs[0]].partial_of
    return -1 if source is None else number[source]


def _last_use(graph: Graph, name: str) -> int:
    readers = graph.consumers.get(name, ())
    if name in graph.outputs or any(reader in graph.tail for reader in readers):
        return NEVER
    return max(readers, default=-1)


def _row_bytes(graph: Graph, name: str) -> int:
    tensor = graph.tensors[name]
    kept = [d for axis, d in enumerate(tensor.shape) if axis != tensor.row_axis]
    return _item_bytes(tensor.dtype) * prod(kept)


def _seconds(times: Sequence[NodeTimes]) -> tuple[Floats, Ints]:
    columns: list[Floats] = []
    at, offsets = 0, []
    for node in range(len(times[0].tables)):
        tables = np.array([device.tables[node] for device in times])
        if tables.any():
            offsets.append(at)
            columns.append(tables)
            at += tables.shape[1]
        else:
            offsets.append(-1)
    columns.append(np.zeros((len(times), 1)))
    return np.ascontiguousarray(np.concatenate(columns, axis=1)), _ints(offsets)


# ---------------------------------------------------------------------- edges


class _Maps:
    """Integer tables of row rules, each kept once."""

    def __init__(self) -> None:
        self.values: list[NDArray[np.int32]] = []
        self.size = 0
        self._known: dict[Any, list[tuple[int, int, int]] | None] = {}

    def of(self, rule: RowRule, height: int) -> list[tuple[int, int, int]] | None:
        """Per input: (kind, offset of first, offset of last); None where a rule does not fit."""
        try:
            key: Any = (rule, height)
            hash(key)
        except TypeError:
            key = (id(rule), height)
        if key not in self._known:
            self._known[key] = self._make(rule, height)
        return self._known[key]

    def _make(self, rule: RowRule, height: int) -> list[tuple[int, int, int]] | None:
        single = [rule.needs(Rows(at, at + 1)) for at in range(height)]
        found = []
        for position in range(len(single[0])):
            ranges = [needs[position] for needs in single]
            if any(rows is None for rows in ranges):
                found.append((WHOLE, 0, 0))
                continue
            first = [rows.start if rows else NOWHERE for rows in ranges if rows is not None]
            last = [rows.stop if rows else 0 for rows in ranges if rows is not None]
            if not self._is_hull(rule, position, first, last):
                return None
            if first == list(range(height)) and last == list(range(1, height + 1)):
                found.append((SAME, 0, 0))
            elif first == sorted(first) and last == sorted(last) and first[-1] < NOWHERE:
                found.append((MAPPED, self._put(first), self._put([0, *last])))
            else:
                found.append((HULL, self._put(first), self._put(last)))
        return found

    @staticmethod
    def _is_hull(rule: RowRule, position: int, first: list[int], last: list[int]) -> bool:
        """Whether a range of rows needs no more and no less than its rows do; tried on many ranges."""
        height = len(first)
        starts = range(height) if height <= 24 else sorted({0, 1, 2, height // 3, height // 2, height - 1})
        for a in starts:
            stops = range(a + 1, height + 1)
            for b in stops if height <= 24 else sorted({*stops[:3], *stops[-3:], (a + height + 1) // 2}):
                expected = Rows(min(first[a:b]), max(last[a:b]))
                needed = rule.needs(Rows(a, b))[position]
                if needed is None or ((needed or expected) and needed != expected):
                    return False
        return True

    def _put(self, table: list[int]) -> int:
        self.values.append(np.array(table, dtype=np.int32))
        self.size += len(table)
        return self.size - len(table)


def _edges(graph: Graph, number: dict[str, int]) -> tuple[Ints, Records, NDArray[np.int32]] | None:
    maps = _Maps()
    lists: list[list[tuple[int, int, int, int]]] = []
    for i, node in enumerate(graph.nodes):
        source = graph.tensors[next(filter(None, node.outputs))].partial_of
        made = [graph.tensors[source]] if source else [graph.tensors[o] for o in node.outputs if o]
        height = max(tensor.rows for tensor in made)
        kinds = maps.of(node.rule, height)
        if kinds is None:
            return None
        edges = []
        for position, name in enumerate(node.inputs):
            if not name or graph.tensors[name].constant:
                continue
            kind, first, last = kinds[position]
            if graph.tensors[name].row_axis is None:
                kind, first, last = WHOLE, 0, 0
            elif is_sync_read(graph, i, position):
                kind, first, last = SYNC, 0, 0
            elif kind == WHOLE:
                return None
            edges.append((number[name], kind, first, last))
        lists.append(edges)
    at, _ = _compressed([[0] * len(edges) for edges in lists])
    flat = [edge for edges in lists for edge in edges]
    fields = ("tensor", "kind", "first", "last")
    edge = filled({field: _ints(edge[at] for edge in flat) for at, field in enumerate(fields)})
    return at, edge, np.concatenate([*maps.values, np.zeros(1, dtype=np.int32)])


# ---------------------------------------------------------------------- tail


def _tail(
    graph: Graph, number: dict[str, int], times: Sequence[NodeTimes]
) -> tuple[Records, Ints, float, list[float]]:
    """The tail as one task: what it reads, makes and costs does not depend on the strategy."""
    nodes = tuple(sorted(graph.tail))
    outputs = tuple(n for n in graph.outputs if graph.producer.get(n, -1) in graph.tail)
    volume = Volume(nodes, (), outputs, None, 1, ())
    own = Ownership(graph, SplitDecision((0, 1)))

    def height(name: str) -> int:
        return graph.tensors[name].rows

    demand = find_demand(graph, volume, own, height, 0, lead=True)
    run = [i for i in nodes if i in demand.needs]
    made = {out for i in run for out in graph.nodes[i].outputs if out}
    reads: dict[str, Rows | None] = {}
    for i in run:
        for name, rows in zip(graph.nodes[i].inputs, demand.needs[i], strict=True):
            if not name or name in made or graph.tensors[name].constant:
                continue
            before = reads.get(name, Rows(0, 0))
            rowed = graph.tensors[name].row_axis is not None
            if not rowed:
                reads[name] = Rows(0, 1)
            elif rows is None or before is None:
                reads[name] = None
            else:
                reads[name] = before.hull(rows)
    if run and not reads and graph.inputs:
        reads[graph.inputs[0]] = Rows(0, 1)  # as compile does, to tell the device that there is a frame
    inside = set(run)
    kept = [n for n in made if n in outputs or any(c not in inside for c in graph.consumers.get(n, ()))]
    read = filled(
        {
            "tensor": _ints(number[name] for name in reads),
            "first": _ints(0 if rows is None else rows.start for rows in reads.values()),
            "last": _ints(-1 if rows is None else rows.stop for rows in reads.values()),
        }
    )
    return (
        read,
        _ints(number[name] for name in outputs if name in made),
        float(sum(_row_bytes(graph, name) for name in kept)),
        [float(sum(float(t.tables[i][1]) for i in run)) for t in times],
    )
