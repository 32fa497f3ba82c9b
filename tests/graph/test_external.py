"""A model from the network may refer to weights by their hash, and to no other file."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from distredge.errors import ModelError
from distredge.graph.external import check_references
from distredge.graph.extract import PartBuilder

WEIGHTS = "0" * 64 + ".weights"
ELSEWHERE = [
    "../x.weights",
    "/etc/passwd",
    "x.weights",
    f"a/{WEIGHTS}",
    f"{WEIGHTS}\n",
    "*/_ORT_MEM_ADDR_/*",
    "",
]


def external(*locations: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for location in locations:
        tensor.external_data.add(key="location", value=location)
    return tensor


def models(tensor: TensorProto) -> dict[str, onnx.ModelProto]:
    """The tensor in every place that a model has for one."""
    body = helper.make_graph([], "body", [], [], [tensor])
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    deep = helper.make_graph(
        [helper.make_node("If", ["b"], ["y"], then_branch=body, else_branch=body)], "g", [], []
    )
    function = helper.make_function("d", "f", [], ["c"], [constant], [])
    sparse = onnx.SparseTensorProto(values=tensor)
    graph = helper.make_graph([], "g", [], [])
    graph.sparse_initializer.append(sparse)
    return {
        "initializer": helper.make_model(body),
        "constant": helper.make_model(helper.make_graph([constant], "g", [], [])),
        "branch": helper.make_model(deep),
        "function": helper.make_model(helper.make_graph([], "g", [], []), functions=[function]),
        "sparse": helper.make_model(graph),
    }


@pytest.mark.parametrize("place", models(external(WEIGHTS)))
def test_only_weights_files_may_be_named(place: str) -> None:
    check_references(models(external(WEIGHTS))[place])
    check_references(models(TensorProto(name="w", dims=[0]))[place])
    for locations in (*([other] for other in ELSEWHERE), [], [WEIGHTS, "/etc/passwd"]):
        with pytest.raises(ModelError, match="keeps 'w' in a file that is not its weights file"):
            check_references(models(external(*locations))[place])


def test_parts_are_not_built_of_such_models() -> None:
    with pytest.raises(ModelError, match="not its weights file"):
        PartBuilder(models(external("/etc/passwd"))["initializer"].SerializeToString())
