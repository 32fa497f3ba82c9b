"""Problems to price: models of the zoo on clusters of the catalog, imported once per session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from distredge.cluster.load import cluster_times, load_cluster
from distredge.cluster.network import Network
from distredge.graph import zoo
from distredge.graph.importer import load_model
from distredge.graph.model import Graph
from distredge.plan.policy import Device, PlanningProblem


@pytest.fixture(scope="session")
def graph_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Graph]:
    folder: Path = tmp_path_factory.mktemp("models")

    @cache
    def load(name: str) -> Graph:
        path = folder / f"{name}.onnx"
        model = zoo.get(name)
        shape = tuple(size or (160 if at > 1 else 1) for at, size in enumerate(model.shape))
        zoo.write(model.build(shape), path)
        return load_model(path, {model.input: shape}).graph

    return load


@pytest.fixture(scope="session")
def problem_of(graph_of: Callable[[str], Graph]) -> Callable[[str, str], PlanningProblem]:
    def make(model: str, cluster: str = "DB-NC") -> PlanningProblem:
        graph, found = graph_of(model), load_cluster(cluster)
        times = cluster_times(found, graph)
        devices = tuple(Device(d.name, t) for d, t in zip(found.devices, times, strict=True))
        return PlanningProblem(graph, devices, Network.of(found))

    return make
