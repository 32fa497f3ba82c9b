"""`python -m policies.precompile`: compiles the simulator and the search ahead of the first plan.

Both are compiled at their first use otherwise, once per machine and version, which takes most of a minute.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from distredge.cluster.load import cluster_times, load_cluster
from distredge.cluster.network import Network
from distredge.graph import zoo
from distredge.graph.importer import load_model
from distredge.plan.policy import Device, PlanningProblem, find_strategy


def main() -> None:
    """Plans a small model that can be cut; what is compiled does not depend on the model."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        zoo.write(zoo.get("squeezenet").build(None, 0), str(path))
        graph = load_model(path).graph
    cluster = load_cluster("DA-NA")
    devices = tuple(Device(times.device, times) for times in cluster_times(cluster, graph))
    find_strategy(PlanningProblem(graph, devices, Network.of(cluster), budget_s=0.5))


if __name__ == "__main__":
    main()
