"""Where a policy may cut the depth: borders of layers, and of these the ones that few tensors cross."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from distredge.graph.model import Graph
from distredge.plan.crossing import crossing

NARROW_LIMIT = 40
"""Candidate cuts of the linear model; its tables of all volumes between them grow with the square."""
DISTINCT_LIMIT = 200
"""Candidate cuts of `search`."""


def layer_cuts(graph: Graph) -> tuple[str, ...]:
    """Cuts after each whole layer: a convolution, or another node that does real work, with all that follows
    it for free (activation, normalisation, pooling, reshaping) up to the next one.

    Of the places between two layers the one that fewest tensors and bytes cross is taken, the last of equals:
    so pooling belongs to the layer in front of it, which moves fewer bytes than a volume of its own. The head
    is left out: see `with_head_cut`.
    """
    across = crossing(graph)
    cuts = {graph.producer[cut]: cut for cut in graph.cut_points}
    working = [i for i in graph.trunk if graph.nodes[i].macs]
    found: list[str] = []
    for before, behind in pairwise(working):
        places = [cuts[i] for i in reversed(range(before, behind)) if i in cuts]
        if places:
            found.append(min(places, key=lambda cut: across[cut]))
    return tuple(found)


def narrow_cuts(graph: Graph, limit: int = NARROW_LIMIT) -> tuple[str, ...]:
    """At most `limit` of `layer_cuts`, those that the fewest tensors and bytes cross, in topological order.

    A chain of layers keeps all of its cuts. In a graph with branches those between blocks come first: a
    cut through a residual block or an Inception module makes devices exchange rows of several tensors.
    """
    candidates = layer_cuts(graph)
    if len(candidates) <= limit:
        return candidates
    across = crossing(graph)
    kept = set(sorted(candidates, key=lambda cut: across[cut])[:limit])
    return tuple(cut for cut in candidates if cut in kept)


def distinct_cuts(graph: Graph, limit: int = DISTINCT_LIMIT) -> tuple[str, ...]:
    """All places where a cut makes a difference, at most `limit` of them, those that least crosses.

    Left out is a cut in front of a node that makes the same rows, of the same size, from what crosses there
    and from nothing else, as between a convolution and its activation: a cut behind that node moves as much.
    """
    found = [cut for cut in graph.cut_points if not _goes_on(graph, cut)]
    if len(found) > limit:
        across = crossing(graph)
        kept = set(sorted(found, key=lambda cut: across[cut])[:limit])
        found = [cut for cut in found if cut in kept]
    return tuple(found)


def _goes_on(graph: Graph, cut: str) -> bool:
    """Whether the next node alone reads what the cut is named after, and a cut behind it is as good."""
    at = graph.producer[cut]
    readers = graph.consumers.get(cut, ())
    if readers != (at + 1,) or cut in graph.outputs or graph.nodes[at + 1].rule.kind != "pointwise":
        return False
    node = graph.nodes[at + 1]
    moving = [name for name in node.inputs if name and not graph.tensors[name].constant]
    before, behind = graph.tensors[cut], graph.tensors[node.outputs[0]]
    same = (before.rows, before.row_bytes, before.quantum) == (behind.rows, behind.row_bytes, behind.quantum)
    return moving == [cut] and same and node.outputs[0] in graph.cut_points


def with_head_cut(graph: Graph, cuts: Iterable[str]) -> tuple[str, ...]:
    """Cuts in the trunk, and the one between trunk and head if there is a head."""
    return (*cuts, graph.head_cut) if graph.head_cut else tuple(cuts)


def stage_cuts(graph: Graph) -> tuple[str, ...]:
    """One cut per height at which the model works: where the rows of what crosses become fewer.

    Behind a pooling layer, in front of a strided convolution; among narrow cuts only.
    """
    cuts = narrow_cuts(graph)
    found: list[str] = []
    high = graph.tensors[cuts[0]].rows if cuts else 0
    for before, behind in pairwise(cuts):
        if (low := graph.tensors[behind].rows) < high:
            pooled = "Pool" in graph.nodes[graph.producer[behind]].op_type
            found.append(behind if pooled else before)
            high = low
    return tuple(dict.fromkeys(found))
