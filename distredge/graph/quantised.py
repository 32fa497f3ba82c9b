"""Rewrites of quantised models, so that cutting the depth changes no rounding."""

from __future__ import annotations

import platform

import numpy as np
from onnx import NodeProto

from distredge.graph.draft import Draft, node_inputs, set_attribute


def unsigned_activations(draft: Draft) -> None:
    """int8 activations with one reader become uint8, 128 higher, as onnxruntime makes them on x86.

    There it does so where it sees both QuantizeLinear and DequantizeLinear, and operators whose input and
    output types then differ are not fused and round otherwise. With a cut in between it would leave int8,
    and fuse other operators than in the whole. Done beforehand, a cut makes no difference. On other
    processors onnxruntime keeps int8, and so do we.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return
    consumers = draft.consumers()
    outputs = {value.name for value in draft.outputs}
    for node in draft.nodes:
        if node.op_type != "QuantizeLinear" or node.domain not in ("", "ai.onnx"):
            continue
        made, readers = node.output[0], consumers.get(node.output[0], [])
        if draft.dtypes.get(made) != "int8" or made in outputs or len(readers) != 1:
            continue
        reader = readers[0]
        if reader.op_type != "DequantizeLinear" or reader.input[0] != made:
            continue
        if _has_known_zero(draft, node) and _has_known_zero(draft, reader):
            _make_unsigned(draft, node)
            _make_unsigned(draft, reader)
            draft.dtypes[made] = "uint8"


def _has_known_zero(draft: Draft, node: NodeProto) -> bool:
    return len(node.input) < 3 or not node.input[2] or draft.constant(node.input[2]) is not None


def _make_unsigned(draft: Draft, node: NodeProto) -> None:
    given = draft.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    zero = np.zeros(draft.shapes[node.input[1]], dtype=np.int8) if given is None else given
    name = draft.add_constant((zero.astype(np.int16) + 128).astype(np.uint8), f"{node.output[0]}/zero_point")
    del node.input[2:]
    node.input.append(name)
    set_attribute(node, "output_dtype", None)


def dequantise_late(draft: Draft) -> None:
    """Move each DequantizeLinear right before its first reader, so that a cut rarely falls in between."""
    late = {node.output[0]: node for node in draft.nodes if node.op_type == "DequantizeLinear"}
    if not late:
        return
    outputs = {value.name for value in draft.outputs}
    nodes: list[NodeProto] = []

    def place(node: NodeProto) -> None:
        for name in node_inputs(node):
            if name in late:
                place(late.pop(name))
        nodes.append(node)

    for node in draft.nodes:
        if node.op_type != "DequantizeLinear":
            place(node)
        elif node.output[0] in outputs and node.output[0] in late:
            place(late.pop(node.output[0]))
    draft.nodes = nodes
