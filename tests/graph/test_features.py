"""Fully connected layers shared out by features: which ones, and what a device reads of their weights."""

from __future__ import annotations

import onnx
import pytest

from distredge.graph import features
from distredge.graph.extract import PartBuilder
from distredge.graph.importer import Model, load_model
from distredge.plan.compile import compile_plan
from distredge.plan.crossing import head_cuts
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.sim.memory import STORED_COPIES, MemoryEstimate
from tests.models import ModelBuilder


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "LARGE_BYTES", 0)


def net_of(*sizes: int, by_feature: bool = True, behind: str = "Softmax") -> ModelBuilder:
    """A map, then layers of these sizes."""
    net = ModelBuilder()
    x = net.add("Flatten", net.relu(net.conv(net.input(1, 3, 8, 8), 4, 3)))
    for size in sizes:
        width = net.shape(x)[1]
        if by_feature:
            x = net.relu(net.add("Gemm", x, net.weights(size, width), net.weights(size), transB=1))
        else:
            x = net.relu(net.add("MatMul", x, net.weights(width, size)))
    net.output(net.add(behind, x) if behind else x)
    return net


def loaded(net: ModelBuilder) -> Model:
    return load_model(net.build())


def kinds(model: Model) -> list[str]:
    return [node.rule.kind for node in model.graph.nodes]


@pytest.mark.usefixtures("any_size")
def test_graph() -> None:
    graph = loaded(net_of(256, 128)).graph
    assert [graph.nodes[i].op_type for i in sorted(graph.head)] == ["Flatten", "Gemm", "Relu", "Gemm", "Relu"]
    assert [graph.nodes[i].op_type for i in sorted(graph.tail)] == ["Softmax"]
    assert [graph.nodes[i].op_type for i in graph.trunk] == ["Conv", "Relu"]
    assert [graph.tensors[graph.nodes[i].outputs[0]].rows for i in sorted(graph.head)] == [
        1,
        256,
        256,
        128,
        128,
    ]
    assert len(head_cuts(graph)) == 2
    assert graph.head_cut == head_cuts(graph)[0] == graph.nodes[graph.trunk[-1]].outputs[0]


def test_small_layers_stay_in_the_tail() -> None:
    graph = loaded(net_of(256, 128)).graph
    assert not graph.head
    assert graph.head_cut == ""
    assert len(graph.tail) == 6


@pytest.mark.usefixtures("any_size")
def test_rows_of_maps_come_first() -> None:
    """Layers that rows of maps are made from again run whole, as before: here a map grows out of a vector."""
    net = ModelBuilder()
    x = net.add("Gemm", net.input(1, 30), net.weights(4 * 16, 30), net.weights(64), transB=1)
    x = net.add("Reshape", x, net.ints(1, 4, 4, 4))
    net.output(net.conv(net.add("ConvTranspose", x, net.weights(4, 4, 3, 3), strides=[2, 2]), 4, 3))
    model = loaded(net)
    assert "features" not in kinds(model)
    assert [node.rule.kind for node in model.graph.nodes][-2:] == ["window", "window"]


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("by_feature", [True, False])
def test_a_part_refers_to_its_own_weights_only(by_feature: bool) -> None:
    model = loaded(net_of(256, 192, by_feature=by_feature, behind=""))
    graph = model.graph
    scheme = PartitionScheme(head_cuts(graph))
    splits = [SplitDecision((0, volume.rows // 4, volume.rows)) for volume in find_volumes(graph, scheme)]
    plan = compile_plan(graph, Strategy(scheme, tuple(splits)), ("a", "b"))
    builder = PartBuilder(model.onnx)
    last = [task for task in plan.tasks if task.volume == 2]
    assert [task.outputs[0].owned.size for task in last] == [64, 128]  # cut at multiples of 64 features
    for task in last:
        part = onnx.ModelProto.FromString(builder.build(plan.parts[task.part]))
        (weights,) = [t for t in part.graph.initializer if len(t.dims) == 2]
        assert list(weights.dims) == [task.outputs[0].owned.size, 256]
        length = next(int(e.value) for e in weights.external_data if e.key == "length")
        assert length == 4 * 256 * task.outputs[0].owned.size


@pytest.mark.usefixtures("any_size")
def test_memory_is_shared_out() -> None:
    graph = loaded(net_of(256, behind="")).graph
    scheme = PartitionScheme(head_cuts(graph))
    trunk, head = find_volumes(graph, scheme)
    memory = MemoryEstimate(graph, 2)
    assert memory.shared_bytes(head.nodes) == STORED_COPIES * 4 * (256 * 256 + 256)
    assert memory.weights_bytes(head.nodes) == 0
    alone = SplitDecision((0, trunk.rows, trunk.rows))
    used = memory.of(Strategy(scheme, (alone, SplitDecision((0, 64, 256)))))
    assert used[1] >= 0.75 * memory.shared_bytes(head.nodes)
    assert used[1] - 0.75 * memory.shared_bytes(head.nodes) <= memory.work_bytes(head)
