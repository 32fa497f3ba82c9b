"""GroupNormalization in the form that older exporters write, before onnxruntime inlines it in a worse one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from distredge.graph.names import names_of_graph, unused


def expand_group_normalisation(model: ModelProto) -> None:
    """Replace GroupNormalization by Reshape, InstanceNormalization, Reshape, scale and bias. In place.

    onnxruntime has no CPU kernel for it and inlines its definition, which flattens rows in a way that
    hides them; this form is recognised by `normalise` and split as two reductions.
    """
    if not any(node.op_type == "GroupNormalization" and node.domain == "" for node in model.graph.node):
        return
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    ranks, mark = _ranks(model), unused("/group_norm", names_of_graph(model.graph))
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        rank = ranks.get(node.input[0]) if node.input else None
        if node.op_type != "GroupNormalization" or node.domain or rank is None:
            nodes.append(node)
            continue
        nodes.extend(_expanded(model, node, rank, opset, mark))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _expanded(model: ModelProto, node: NodeProto, rank: int, opset: int, mark: str) -> list[NodeProto]:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    groups = int(attributes["num_groups"])
    x, scale, bias = node.input[:3]
    base = f"{node.output[0]}{mark}"

    def constant(name: str, value: np.ndarray[Any, Any]) -> str:
        model.graph.initializer.append(numpy_helper.from_array(value, f"{base}/{name}"))
        return f"{base}/{name}"

    per_group = opset < 21
    ones, zeros = (scale, bias) if per_group else (
        constant("ones", np.ones(groups, dtype=np.float32)),
        constant("zeros", np.zeros(groups, dtype=np.float32)),
    )  # fmt: skip
    epsilon = attributes.get("epsilon", 1e-5)
    joined = node.output[0] if per_group else f"{base}/joined"
    nodes = [
        helper.make_node("Shape", [x], [f"{base}/shape"]),
        helper.make_node("Reshape", [x, constant("split", np.array([0, groups, -1]))], [f"{base}/groups"]),
        helper.make_node(
            "InstanceNormalization", [f"{base}/groups", ones, zeros], [f"{base}/normed"], epsilon=epsilon
        ),
        helper.make_node("Reshape", [f"{base}/normed", f"{base}/shape"], [joined]),
    ]
    if not per_group:
        columns = constant("columns", np.array([-1] + [1] * (rank - 2)))
        nodes += [
            helper.make_node("Reshape", [scale, columns], [f"{base}/scale"]),
            helper.make_node("Reshape", [bias, columns], [f"{base}/bias"]),
            helper.make_node("Mul", [joined, f"{base}/scale"], [f"{base}/scaled"]),
            helper.make_node("Add", [f"{base}/scaled", f"{base}/bias"], [node.output[0]]),
        ]
    return nodes


def _ranks(model: ModelProto) -> dict[str, int]:
    """Rank of every tensor, where ONNX's inference finds it; float32 tensors only."""
    light = ModelProto()
    light.CopyFrom(model)
    for tensor in light.graph.initializer:
        if len(tensor.raw_data) > 1024:
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="pending")
    graph = onnx.shape_inference.infer_shapes(light).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    return {
        v.name: len(v.type.tensor_type.shape.dim)
        for v in values
        if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and v.type.tensor_type.HasField("shape")
    }
