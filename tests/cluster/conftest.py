"""A small graph for the cluster tests, made by hand: no ONNX in here."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from distredge.graph.model import Graph, Node, Tensor
from distredge.graph.rows import Rows


@dataclass(frozen=True)
class Rule:
    """A row rule that only says its kind; nothing in `cluster` asks for more."""

    kind: str
    axes: tuple[int | None, ...] = (2,)

    def needs(self, out: Rows) -> tuple[Rows | None, ...]:
        raise NotImplementedError

    def edit(self, out: Rows) -> None:
        raise NotImplementedError


@pytest.fixture
def graph() -> Graph:
    """x[10 rows] -> conv a[10] -> relu b[10] -> pooled conv c[5] -> partial p -> combine m -> gemm y."""
    heights = {"x": 10, "a": 10, "b": 10, "c": 5}
    rowed = {name: Tensor(name, (1, 4, rows, 8), "float32", 2) for name, rows in heights.items()}
    whole = {
        "p": Tensor("p", (1, 4, 0, 1), "float32", 2, partial_of="c"),
        "m": Tensor("m", (1, 4, 1, 1), "float32"),
        "y": Tensor("y", (1, 7), "float32"),
        "w": Tensor("w", (1, 1, 99, 1), "float32", 2, constant=True),
    }
    nodes = (
        Node("conv1", "conv1", "Conv", ("x", "w"), ("a",), Rule("window"), macs=1000),
        Node("relu", "relu", "Relu", ("a",), ("b",), Rule("pointwise")),
        Node("conv2", "conv2", "Conv", ("b",), ("c",), Rule("window"), macs=500),
        Node("pool.partial", "pool", "GlobalAveragePool", ("c",), ("p",), Rule("partial"), form="partial"),
        Node("pool.combine", "pool", "GlobalAveragePool", ("p",), ("m",), Rule("combine"), form="combine"),
        Node("fc", "fc", "Gemm", ("m",), ("y",), Rule("barrier"), macs=70),
    )
    return Graph(
        "small", nodes, rowed | whole, ("x",), ("y",), ("a", "b", "c"), digest="0123456789abcdef" * 4
    )
