"""The whole model with exact sums over rows: what onnxruntime would answer if it did not round them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto, helper

from distredge.graph.names import names_of_graph, unused

_SUMS = {"GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"}


def with_exact_sums(model: bytes, factors: Mapping[str, float]) -> bytes:
    """Puts casts to double precision and back around these float reductions.

    Args:
        model: a serialised model, simplified: shapes are known.
        factors: by the names of nodes: what their sums are multiplied by before they are rounded; 1 for
            the sums themselves.
    """
    proto = onnx.load_model_from_string(model)
    floats = {
        value.name
        for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    mark = unused("/double", names_of_graph(proto.graph))
    nodes = []
    for node in proto.graph.node:
        if node.name not in factors or node.op_type not in _SUMS or node.input[0] not in floats:
            nodes.append(node)
            continue
        source, made, factor = node.input[0], node.output[0], factors[node.name]
        if node.op_type == "GlobalAveragePool":  # its double kernel is missing
            rank = next(
                len(v.type.tensor_type.shape.dim)
                for v in (*proto.graph.value_info, *proto.graph.input)
                if v.name == source
            )
            opset = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
            node = _mean(node.name, f"{made}{mark}_in", f"{made}{mark}_out", rank, opset, proto.graph)
        else:
            node.input[0], node.output[0] = f"{made}{mark}_in", f"{made}{mark}_out"
        nodes.append(helper.make_node("Cast", [source], [f"{made}{mark}_in"], to=TensorProto.DOUBLE))
        nodes.append(node)
        total = f"{made}{mark}_out"
        if factor != 1:
            by = helper.make_tensor(f"{made}{mark}_factor", TensorProto.DOUBLE, [], [factor])
            proto.graph.initializer.append(by)
            nodes.append(helper.make_node("Mul", [total, by.name], [f"{made}{mark}_times"]))
            total = f"{made}{mark}_times"
        nodes.append(helper.make_node("Cast", [total], [made], to=TensorProto.FLOAT))
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    return bytes(proto.SerializeToString())


def _mean(name: str, source: str, made: str, rank: int, opset: int, graph: onnx.GraphProto) -> onnx.NodeProto:
    axes = list(range(2, rank))
    if opset < 18:
        return helper.make_node("ReduceMean", [source], [made], name, axes=axes)
    graph.initializer.append(helper.make_tensor(f"{name}/axes", TensorProto.INT64, [len(axes)], axes))
    return helper.make_node("ReduceMean", [source, f"{name}/axes"], [made], name)
