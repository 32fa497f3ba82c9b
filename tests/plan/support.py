"""Graphs and strategies for the plan tests."""

from __future__ import annotations

import random
from functools import cache

from distredge.graph.importer import Model, load_model
from distredge.graph.model import Graph
from distredge.plan.compile import compile_plan
from distredge.plan.draw import random_strategy
from distredge.plan.execution import ExecutionPlan
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from tests import models
from tests.verify.networks import NETWORKS

SMALL = {"chain": models.chain, "branches": models.branches, "excited": models.excited}
NAMES = (
    *SMALL,
    "unet",
    "fpn",
    "yolo",
    "merged_heads",
    "two_inputs",
    "barrier_in_the_middle",
    "mobilenet_v3",
    "shallow",
    "boxes_by_score",
    "multilayer_perceptron",
)


@cache
def model(name: str) -> Model:
    return load_model(SMALL[name]() if name in SMALL else NETWORKS[name]().build())


def graph(name: str) -> Graph:
    return model(name).graph


def names(devices: int) -> list[str]:
    return [f"peer{i}" for i in range(devices)]


def one_volume(bounds: tuple[int, ...], tail_device: int | None = None) -> Strategy:
    return Strategy(PartitionScheme(), (SplitDecision(bounds),), tail_device)


def random_plan(name: str, devices: int, cuts: int, seed: int, wire: str = "exact") -> ExecutionPlan:
    strategy = random_strategy(graph(name), devices, cuts, random.Random(seed))
    return compile_plan(graph(name), strategy, names(devices), model="m", wire=wire)


def sent(
    plan: ExecutionPlan, source: int | None = None, target: int | None = None
) -> list[tuple[str, int, int]]:
    """Tensor and rows of each transfer, or of those between these."""
    return [
        (t.tensor, *t.rows)
        for t in plan.transfers
        if source in (None, t.source) and target in (None, t.target)
    ]
