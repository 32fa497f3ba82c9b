"""What a model that came over the network may refer to: a weights file by its hash, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator

from onnx import AttributeProto, GraphProto, ModelProto, TensorProto

from distredge.errors import ModelError

_WEIGHTS = re.compile(r"[0-9a-f]{64}\.weights")


def check_references(model: ModelProto) -> None:
    """Refuses references to any other file. Newer versions of onnxruntime check paths too; older ones, such
    as those for some boards, read what they are told.

    Raises:
        ModelError: the model refers to something else.
    """
    graphs = [model.graph, *_bodies(model)]
    for tensor in (tensor for graph in graphs for tensor in _tensors(graph)):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        places = [entry.value for entry in tensor.external_data if entry.key == "location"]
        if len(places) != 1 or not _WEIGHTS.fullmatch(places[0]):
            raise ModelError(f"the model keeps {tensor.name!r} in a file that is not its weights file")


def _bodies(model: ModelProto) -> Iterator[GraphProto]:
    """The model's functions, as graphs."""
    return (GraphProto(node=function.node) for function in model.functions)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from _of_attribute(attribute)


def _of_attribute(attribute: AttributeProto) -> Iterator[TensorProto]:
    yield attribute.t
    yield from attribute.tensors
    for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
        yield from (sparse.values, sparse.indices)
    for graph in (attribute.g, *attribute.graphs):
        yield from _tensors(graph)
