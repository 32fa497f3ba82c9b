"""`python -m distredge.control.precompile`: compiles the simulator and the search ahead of the first plan.

Both are compiled at their first use otherwise, once per machine and version, which takes most of a minute.
So are the modules that an agent learns with, where they are installed.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from distredge.cluster.load import load_cluster
from distredge.control.problem import planning_problem
from distredge.graph import zoo
from distredge.graph.importer import load_model
from distredge.plan.policy import get_policy

EVALUATIONS = 20_000
"""Enough for every part of the search to have its turn, however long compiling takes."""
LEARNING_S = 0.5


def main() -> None:
    """Plans a small model that can be cut; what is compiled does not depend on the model."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        zoo.write(zoo.get("squeezenet").build(None, 0), str(path))
        graph = load_model(path).graph
    problem = planning_problem(graph, load_cluster("DA-NA"))
    get_policy("auto", evaluations=EVALUATIONS).find_strategy(problem)
    if find_spec("tianshou"):
        get_policy("osds").find_strategy(replace(problem, budget_s=LEARNING_S))


if __name__ == "__main__":
    main()
