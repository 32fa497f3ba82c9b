"""Names for what DistrEdge adds to a model, none of which the model may have already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import GraphProto, NodeProto, ValueInfoProto

from distredge.graph.bodies import subgraphs


def names_of(nodes: Iterable[NodeProto], values: Iterable[ValueInfoProto]) -> tuple[str, ...]:
    """Every name of a node, of a tensor that one reads or makes, and of `values`, bodies included."""
    return (*_of_nodes(nodes), *(value.name for value in values))


def names_of_graph(graph: GraphProto) -> tuple[str, ...]:
    """Every name in a graph, bodies included."""
    named = (*graph.initializer, *graph.input, *graph.output)
    return (*_of_nodes(graph.node), *(item.name for item in named))


def unused(mark: str, names: Iterable[str]) -> str:
    """`mark`, lengthened until it is in none of the names: what has it in its name is new."""
    names = tuple(names)
    while any(mark in name for name in names):
        mark += "_"
    return mark


def partials_mark(names: Iterable[str]) -> str:
    """What stands behind a tensor's name in that of its partial results.

    Args:
        names: of the simplified model: of its nodes, their tensors, and its inputs.
    """
    return unused(".partials", names)


def _of_nodes(nodes: Iterable[NodeProto]) -> Iterator[str]:
    for node in nodes:
        yield node.name
        yield from node.input
        yield from node.output
        for body in subgraphs(node):
            yield from names_of_graph(body)
