"""`python -m distredge.control.precompile`: compiles the simulator and the search ahead of the first plan.

Both are compiled at their first use otherwise, once per machine and version, which takes most of a minute.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from distredge.cluster.load import load_cluster
from distredge.control.problem import planning_problem
from distredge.graph import zoo
from distredge.graph.importer import load_model
from distredge.plan.policy import find_strategy


def main() -> None:
    """Plans a small model that can be cut; what is compiled does not depend on the model."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        zoo.write(zoo.get("squeezenet").build(None, 0), str(path))
        graph = load_model(path).graph
    find_strategy(planning_problem(graph, load_cluster("DA-NA"), budget_s=0.5))


if __name__ == "__main__":
    main()
