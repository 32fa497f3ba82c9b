"""Small planning problems, made by hand: graphs in a few lines, devices by three numbers."""

from __future__ import annotations

from math import inf, prod

from distredge.cluster.network import Link, Network
from distredge.cluster.synthetic import SyntheticDevice
from distredge.graph.model import Graph, Node, Tensor
from distredge.graph.rules import FeatureRule, PointwiseRule, WholeRule, WindowRule
from distredge.plan.policy import Device, PlanningProblem

CHANNELS = 8


class GraphBuilder:
    """One graph under construction; methods return the name of the tensor made."""

    def __init__(self, rows: int) -> None:
        self.tensors = {"x": Tensor("x", (1, CHANNELS, rows, rows), "float32", 2)}
        self.nodes: list[Node] = []

    def conv(self, source: str, stride: int = 1, kernel: int = 3) -> str:
        height = self.tensors[source].rows
        made = -(-height // stride)
        pad = kernel // 2
        rule = WindowRule((2, None), height, kernel, stride, (pad, pad, pad, pad))
        weights = f"w{len(self.nodes)}"
        self.tensors[weights] = Tensor(
            weights, (CHANNELS, CHANNELS, kernel, kernel), "float32", constant=True
        )
        macs = made * made * CHANNELS * CHANNELS * kernel * kernel
        return self._add("Conv", (source, weights), made, rule, macs)

    def relu(self, source: str) -> str:
        return self._add("Relu", (source,), self.tensors[source].rows, PointwiseRule((2,)), 0)

    def add(self, *sources: str) -> str:
        rule = PointwiseRule((2,) * len(sources))
        return self._add("Add", sources, self.tensors[sources[0]].rows, rule, 0)

    def dense(self, source: str, size: int = 10) -> str:
        width = prod(self.tensors[source].shape)
        weights = f"w{len(self.nodes)}"
        self.tensors[weights] = Tensor(weights, (width, size), "float32", constant=True)
        name = f"t{len(self.nodes)}"
        self.tensors[name] = Tensor(name, (1, size), "float32")
        rule = WholeRule((None, None))
        self.nodes.append(
            Node(f"n{name}", f"n{name}", "Gemm", (source, weights), (name,), rule, macs=width * size)
        )
        return name

    def features(self, source: str, size: int) -> str:
        """A fully connected layer whose features are rows."""
        width = prod(self.tensors[source].shape)
        weights, name = f"w{len(self.nodes)}", f"t{len(self.nodes)}"
        self.tensors[weights] = Tensor(weights, (size, width), "float32", constant=True)
        self.tensors[name] = Tensor(name, (1, size), "float32", 1, quantum=64)
        rule = FeatureRule((None, 0))
        self.nodes.append(
            Node(f"n{name}", f"n{name}", "Gemm", (source, weights), (name,), rule, macs=width * size)
        )
        return name

    def _add(self, op: str, sources: tuple[str, ...], rows: int, rule: object, macs: int) -> str:
        name = f"t{len(self.nodes)}"
        self.tensors[name] = Tensor(name, (1, CHANNELS, rows, rows), "float32", 2)
        self.nodes.append(Node(f"n{name}", f"n{name}", op, sources, (name,), rule, macs=macs))  # type: ignore[arg-type]
        return name

    def graph(self, *outputs: str) -> Graph:
        """The graph; it may be cut behind every rowed tensor but the outputs."""
        graph = Graph("test", tuple(self.nodes), self.tensors, ("x",), outputs, (), digest="0" * 64)
        body = [i for i in range(len(self.nodes)) if i not in graph.tail]
        cuts = tuple(self.nodes[i].outputs[0] for i in body[:-1])
        return Graph("test", graph.nodes, graph.tensors, ("x",), outputs, cuts, digest="0" * 64)


def chain(rows: int = 32, layers: int = 5) -> Graph:
    """Convolutions one behind the other; every second one halves the height."""
    builder, name = GraphBuilder(rows), "x"
    for layer in range(layers):
        name = builder.relu(builder.conv(name, stride=1 + layer % 2))
    return builder.graph(name)


def branches(rows: int = 24) -> Graph:
    """Two residual blocks, a fork with two outputs of different heights, and a tail."""
    builder = GraphBuilder(rows)
    name = builder.conv("x", stride=2)
    for _ in range(2):
        name = builder.relu(builder.add(builder.conv(builder.relu(builder.conv(name))), name))
    low = builder.conv(name, stride=2)
    return builder.graph(builder.conv(name, kernel=1), builder.conv(low), builder.dense(low))


def with_head(rows: int = 16) -> Graph:
    """Two convolutions, two layers that are shared out by features, and a small one."""
    builder = GraphBuilder(rows)
    x = builder.conv(builder.conv("x"), stride=2)
    return builder.graph(builder.dense(builder.features(builder.features(x, 2048), 1024)))


def all_tail(rows: int = 8) -> Graph:
    """Nothing that can be split."""
    builder = GraphBuilder(rows)
    return builder.graph(builder.dense(builder.dense("x")))


def problem(
    graph: Graph,
    gflops: tuple[float, ...] = (4.0, 2.0, 1.0),
    mbps: tuple[float, ...] | None = None,
    memory_bytes: tuple[float, ...] | None = None,
    seed: int = 0,
    budget_s: float = 0.2,
    overlap: bool = False,
) -> PlanningProblem:
    """Devices of these speeds, each with a link of its own."""
    rates = mbps or (100.0,) * len(gflops)
    memory = memory_bytes or (inf,) * len(gflops)
    devices = tuple(
        Device(f"d{i}", SyntheticDevice(f"d{i}", speed * 1e9, 20e-6, 1).on(graph), room)
        for i, (speed, room) in enumerate(zip(gflops, memory, strict=True))
    )
    network = Network(tuple(Link(rate, rate, 1e-4, 5e-5) for rate in rates), Link(1000.0, 1000.0))
    return PlanningProblem(graph, devices, network, seed, budget_s, overlap=overlap)
