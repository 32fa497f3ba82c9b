"""A model without inputs gets one, since a frame begins with an input that arrives."""

from __future__ import annotations

from onnx import ModelProto, TensorProto, helper

from distredge.errors import ModelError

START = "distredge/start"
"""The input that such a model gets: the number 0, which sessions feed by themselves."""


def with_start(model: ModelProto) -> None:
    """Makes the first output depend on an input: it is picked, by that number, out of one. Changes `model`.

    Raises:
        ModelError: the first output is no tensor that a node or constant gives.
    """
    graph = model.graph
    if not graph.output or graph.output[0].type.WhichOneof("value") not in (None, "tensor_type"):
        raise ModelError(
            "the model has no input, and no tensor as its first output: there is nothing to split"
        )
    wanted, before = graph.output[0].name, "distredge/before"
    for node in graph.node:
        for i, made in enumerate(node.output):
            if made == wanted:
                node.output[i] = before
    for tensor in graph.initializer:
        if tensor.name == wanted:
            tensor.name = before
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    if opset < 13:
        only = helper.make_node("Unsqueeze", [before], ["distredge/only"], axes=[0])
    else:
        graph.initializer.append(helper.make_tensor("distredge/axis", TensorProto.INT64, [1], [0]))
        only = helper.make_node("Unsqueeze", [before, "distredge/axis"], ["distredge/only"])
    pick = helper.make_node("Gather", ["distredge/only", START], [wanted], axis=0)
    # Bodies of loops and others that read the output come behind it.
    at = next((i + 1 for i, node in enumerate(graph.node) if before in node.output), 0)
    for node in (pick, only):
        graph.node.insert(at, node)
    graph.input.append(helper.make_tensor_value_info(START, TensorProto.INT64, ()))
