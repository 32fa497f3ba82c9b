"""The grid on which policies are compared: models of the zoo × clusters of the catalog, all synthetic."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from distredge.cluster.catalog.grid import GRID
from distredge.control.problem import planning_problem
from distredge.graph import zoo
from distredge.graph.importer import load_model
from distredge.graph.model import Graph
from distredge.plan.options import PlanningOptions
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy

MODELS = ("vgg16-body", "yolov2", "resnet50", "inception_v3", "ssd_vgg16")
CELLS = tuple((model, cluster) for model in MODELS for cluster in GRID)
BEST_KNOWN = Path(__file__).parent / "best_known.json"
RESULTS = Path(__file__).parent / "results"


@cache
def graph_of(model: str) -> Graph:
    """The graph of a model of the zoo at its default shape; weights do not matter for planning."""
    return load_model(zoo.get(model).build().SerializeToString()).graph


def problem_of(model: str, cluster: str, seed: int = 0, budget_s: float = 2.0) -> PlanningProblem:
    """One cell of the grid."""
    options = PlanningOptions(seed, budget_s, overlap=False)
    return planning_problem(graph_of(model), GRID[cluster], options)


def load_best() -> dict[str, dict[str, Any]]:
    """Best-known answers by `MODEL CLUSTER`; see `benchmarks.planning_best`."""
    return json.loads(BEST_KNOWN.read_text()) if BEST_KNOWN.exists() else {}


def strategy_to_json(strategy: Strategy) -> dict[str, Any]:
    """A strategy as plain values."""
    return {
        "cuts": list(strategy.scheme.cuts),
        "bounds": [list(split.bounds) for split in strategy.splits],
        "tail_device": strategy.tail_device,
    }


def strategy_from_json(plain: dict[str, Any]) -> Strategy:
    """What `strategy_to_json` made."""
    splits = tuple(SplitDecision(tuple(bounds)) for bounds in plain["bounds"])
    return Strategy(PartitionScheme(tuple(plain["cuts"])), splits, plain["tail_device"])
