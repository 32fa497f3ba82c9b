"""Layer-volumes: which nodes lie between two cuts, and what crosses their borders."""

from __future__ import annotations

from dataclasses import dataclass

from distredge.errors import StrategyError
from distredge.graph.model import Graph, Tensor
from distredge.plan.strategy import PartitionScheme


@dataclass(frozen=True, slots=True)
class Volume:
    """Consecutive nodes run without an exchange of rows.

    Attributes:
        nodes: indices into `Graph.nodes`, in topological order; the tail's are in none.
        inputs: tensors from outside that the nodes read (constants left out).
        outputs: tensors that nodes outside, or the requester, read.
        reference: the tensor whose rows a SplitDecision counts: the tallest rowed output, or, when
            there is none, the tallest tensor that is reduced or gathered inside; None when nothing
            in the volume has rows.
        rows: rows of the reference; 1 without one.
        syncs: rowed tensors that a node of this same volume reads whole; each device must compute
            the rows it owns of them, and devices exchange these.
        reduces: whether devices share a reduction over rows in it, each adding up its own. A device's lanes
            are then one: sums of each lane would have to be sent, too.
    """

    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reference: str | None
    rows: int
    syncs: tuple[str, ...]
    reduces: bool = False


def is_sync_read(graph: Graph, node: int, position: int) -> bool:
    """Whether this node reads its input at `position` whole though devices hold it in rows."""
    spec = graph.nodes[node]
    tensor = graph.tensors[spec.inputs[position]]
    return tensor.row_axis is not None and not tensor.constant and spec.rule.axes[position] is None


def cut_positions(graph: Graph, scheme: PartitionScheme) -> list[int]:
    """Node index of each cut's producer, rising.

    Raises:
        StrategyError: a cut is not one of `Graph.cut_points`, or cuts are out of order.
    """
    allowed = set(graph.cut_points)
    positions: list[int] = []
    for cut in scheme.cuts:
        if cut not in allowed:
            raise StrategyError(f"the depth cannot be cut at {cut!r}; see `distredge inspect`", cut=cut)
        position = graph.producer[cut]
        if positions and position <= positions[-1]:
            raise StrategyError(f"cut {cut!r} does not lie behind the cut before it", cut=cut)
        positions.append(position)
    return positions


def find_volumes(graph: Graph, scheme: PartitionScheme) -> tuple[Volume, ...]:
    """The scheme's layer-volumes, in order; the tail is left out."""
    body = [i for i in range(len(graph.nodes)) if i not in graph.tail]
    ends = [*cut_positions(graph, scheme), len(graph.nodes)]
    volumes, at = [], 0
    for end in ends:
        members = []
        while at < len(body) and body[at] <= end:
            members.append(body[at])
            at += 1
        volumes.append(_volume(graph, tuple(members)))
    return tuple(volumes)


def _volume(graph: Graph, nodes: tuple[int, ...]) -> Volume:
    members = set(nodes)
    inputs: dict[str, None] = {}
    outputs: dict[str, None] = {}
    syncs: dict[str, None] = {}
    reduced: dict[str, None] = {}
    wanted = set(graph.outputs)
    for i in nodes:
        for position, name in enumerate(graph.nodes[i].inputs):
            if not name or graph.tensors[name].constant:
                continue
            if graph.producer.get(name, -1) not in members:
                inputs[name] = None
            elif is_sync_read(graph, i, position):
                syncs[name] = None
        for name in graph.nodes[i].outputs:
            if not name:
                continue
            if name in wanted or any(c not in members for c in graph.consumers.get(name, ())):
                outputs[name] = None
            source = graph.tensors[name].partial_of
            if source is not None:
                reduced[source] = None
    reference = _tallest(graph, outputs) or _tallest(graph, [*syncs, *reduced]) or _tallest(graph, inputs)
    return Volume(
        nodes=nodes,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        reference=reference.name if reference else None,
        rows=reference.rows if reference else 1,
        syncs=tuple(syncs),
        reduces=bool(reduced),
    )


def _tallest(graph: Graph, names: object) -> Tensor | None:
    rowed = [
        tensor
        for tensor in (graph.tensors[name] for name in names)  # type: ignore[attr-defined]
        if tensor.row_axis is not None and tensor.partial_of is None and not tensor.constant
    ]
    return max(rowed, key=lambda tensor: tensor.rows, default=None)
