"""The backward pass: which rows each part must compute inside one volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from distredge.graph.model import Graph
from distredge.graph.rows import Rows
from distredge.plan.strategy import SplitDecision
from distredge.plan.volumes import Volume, is_sync_read

WHOLE = Rows(0, 1)
"""The rows of a whole tensor."""


@dataclass(frozen=True)
class Ownership:
    """Who owns which rows of each tensor of one volume: a share of every tensor at the same fraction."""

    graph: Graph
    decision: SplitDecision

    def bounds(self, tensor: str) -> SplitDecision:
        """Which rows of a tensor each part owns."""
        info = self.graph.tensors[tensor]
        return self.decision.scaled(info.rows, info.quantum)

    def contributors(self, partials: str) -> list[int]:
        """Parts that own rows of the tensor that is reduced, in order: one row of partials each."""
        source = self.graph.tensors[partials].partial_of
        assert source is not None
        bounds = self.bounds(source)
        return [at for at in range(bounds.parts) if bounds.part(at)]

    def rows(self, tensor: str, part: int) -> Rows:
        """Rows of `tensor` owned by `part`; empty when it owns none."""
        if self.graph.tensors[tensor].partial_of is None:
            return self.bounds(tensor).part(part)
        contributors = self.contributors(tensor)
        if part not in contributors:
            return Rows(0, 0)
        at = contributors.index(part)
        return Rows(at, at + 1)

    def height(self, tensor: str) -> int:
        """Rows in all; for partials, the number of contributors."""
        info = self.graph.tensors[tensor]
        return info.rows if info.partial_of is None else len(self.contributors(tensor))


@dataclass
class Demand:
    """What one part computes and reads in one volume.

    Attributes:
        makes: rows computed of each tensor made in the volume, halo included; WHOLE for whole ones.
        needs: per node that runs, the rows of each input (None: whole, constant or absent).
        reads: rows read of tensors from outside the volume.
        gathers: rowed tensors of this volume that the part needs in full, from everyone.
    """

    makes: dict[str, Rows] = field(default_factory=dict)
    needs: dict[int, tuple[Rows | None, ...]] = field(default_factory=dict)
    reads: dict[str, Rows] = field(default_factory=dict)
    gathers: set[str] = field(default_factory=set)


def find_demand(
    graph: Graph,
    volume: Volume,
    own: Ownership,
    height: Callable[[str], int],
    part: int,
    lead: bool,
) -> Demand:
    """Applies the row rules backwards from what `part` owes to others.

    Args:
        graph: the model.
        volume: the layer-volume.
        own: ownership of its tensors.
        height: rows in all of a rowed tensor from outside the volume.
        part: whose demand.
        lead: this part stands in when none owns rows of anything in the volume.
    """
    demand = Demand()
    makes = demand.makes
    for name in dict.fromkeys((*volume.outputs, *volume.syncs)):
        if graph.tensors[name].row_axis is not None and (rows := own.rows(name, part)):
            makes[name] = rows
    if not makes and not lead:
        return demand
    for name in volume.outputs:
        if graph.tensors[name].row_axis is None:
            makes[name] = WHOLE
    members = set(volume.nodes)
    for i in reversed(volume.nodes):
        node = graph.nodes[i]
        out = Rows(0, 0)
        for name in node.outputs:
            out = out.hull(makes.get(name, Rows(0, 0)))
        if not out:
            continue
        for name in node.outputs:
            if name:
                makes[name] = out
        if node.form == "partial":
            source = graph.tensors[node.outputs[0]].partial_of
            assert source is not None
            out = own.rows(source, part)
        needs = node.rule.needs(out)
        demand.needs[i] = needs
        for position, (name, need) in enumerate(zip(node.inputs, needs, strict=True)):
            if not name or graph.tensors[name].constant:
                continue
            inside = graph.producer.get(name, -1) in members
            wanted = need or WHOLE
            if graph.tensors[name].row_axis is None:
                wanted = WHOLE
            elif is_sync_read(graph, i, position):
                if inside:
                    demand.gathers.add(name)
                    continue
                wanted = Rows(0, height(name))
            target = makes if inside else demand.reads
            target[name] = target.get(name, Rows(0, 0)).hull(wanted)
    return demand


def find_stages(graph: Graph, volume: Volume) -> dict[int, int]:
    """Stage of each node: one more than that of any node whose rows it must first gather."""
    stages: dict[int, int] = {}
    for i in volume.nodes:
        stage = 0
        for position, name in enumerate(graph.nodes[i].inputs):
            before = graph.producer.get(name, -1)
            if before in stages:
                stage = max(stage, stages[before] + int(is_sync_read(graph, i, position)))
        stages[i] = stage
    return stages
