"""How much of a model's work a strategy really shares out."""

from __future__ import annotations

from distredge.graph.model import Graph
from distredge.plan.demand import Ownership
from distredge.plan.strategy import Strategy
from distredge.plan.volumes import find_volumes


def planned_split_share(graph: Graph, strategy: Strategy) -> float:
    """Multiply-accumulates in nodes whose rows two or more devices own, over all; 0 for a model with none."""
    strategy = strategy.merged
    total = sum(node.macs for node in graph.nodes)
    split = 0
    for volume, decision in zip(find_volumes(graph, strategy.scheme), strategy.splits, strict=True):
        own = Ownership(graph, decision)
        for i in volume.nodes:
            name = next(filter(None, graph.nodes[i].outputs))
            rowed = graph.tensors[name].partial_of or name
            if not graph.nodes[i].macs or graph.tensors[rowed].row_axis is None:
                continue
            split += graph.nodes[i].macs * (sum(bool(own.rows(rowed, d)) for d in range(decision.parts)) > 1)
    return split / total if total else 0.0
