"""Sparse constants become dense ones, the only kind that the importer knows."""

from __future__ import annotations

from math import prod

import numpy as np
from onnx import AttributeProto, GraphProto, SparseTensorProto, TensorProto, numpy_helper

from distredge.errors import ModelError
from distredge.graph.bodies import subgraphs
from distredge.graph.draft import LIMIT_BYTES


def with_dense_constants(graph: GraphProto, where: str) -> None:
    """Makes sparse initializers and sparse values of Constant nodes dense, in bodies too. Changes `graph`.

    Args:
        where: the model, for messages.

    Raises:
        ModelError: one is larger than 2 GB when it is dense, or does not hold together.
    """
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse, where))
    del graph.sparse_initializer[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.SPARSE_TENSOR and node.op_type == "Constant":
                tensor = _dense(attribute.sparse_tensor, where)
                attribute.Clear()
                attribute.name, attribute.type = "value", AttributeProto.TENSOR
                attribute.t.CopyFrom(tensor)
        for body in subgraphs(node):
            with_dense_constants(body, where)


def _dense(sparse: SparseTensorProto, where: str) -> TensorProto:
    name, dims = sparse.values.name, tuple(sparse.dims)
    try:
        if TensorProto.EXTERNAL in (sparse.values.data_location, sparse.indices.data_location):
            raise ValueError("it lies in another file")
        values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
        if values.dtype.hasobject:
            raise ValueError("it holds strings")
        if prod(dims) * values.itemsize > LIMIT_BYTES:
            raise ValueError("it is larger than 2 GB when it is dense")
        dense = np.zeros(dims, values.dtype)
        dense[np.unravel_index(indices, dims) if indices.ndim == 1 else tuple(indices.T)] = values
    except (ValueError, IndexError, TypeError) as error:
        raise ModelError(
            f"{where}: the sparse constant {name!r} cannot be read ({error})", source=where
        ) from error
    return numpy_helper.from_array(dense, name)
