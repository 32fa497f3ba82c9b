"""`python -m benchmarks.planning_rate`: strategies that the evaluator prices in a second, on one core.

vgg16-body in all cells of the grid, and some others. The clock is the process's own, so that other work on
the machine counts less. Writes benchmarks/results/planning_rate.json.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from typing import Any

import numpy as np

from benchmarks.planning_grid import RESULTS, graph_of
from distredge.cluster.catalog.grid import GRID
from distredge.cluster.load import load_cluster
from distredge.control.problem import planning_problem
from distredge.plan.draw import random_split
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import PartitionScheme
from distredge.sim.pricing import Pricer, SchemePricer

BATCH = 10_000


def pooled_scheme(problem: PlanningProblem, volumes: int) -> PartitionScheme:
    """Cuts behind pools, as most policies would have them, filled up with even ones."""
    graph = problem.graph
    pools = [n.outputs[0] for n in graph.nodes if n.op_type == "MaxPool" and n.outputs[0] in graph.cut_points]
    if len(pools) >= volumes - 1:
        return PartitionScheme(tuple(pools[: volumes - 1]))
    step = len(graph.cut_points) / volumes
    return PartitionScheme(tuple(graph.cut_points[int(step * at)] for at in range(1, volumes)))


def random_bounds(scheme: SchemePricer, devices: int, batch: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Uneven parts, one in five of them empty."""
    rng = random.Random(seed)
    return np.array([[random_split(r, devices, rng).bounds for r in scheme.rows] for _ in range(batch)])


def near_equal_bounds(scheme: SchemePricer, devices: int, batch: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Every device takes part in every volume: the slowest to price."""
    even = [[round(rows * at / devices) for at in range(devices + 1)] for rows in scheme.rows]
    moved = np.array([even] * batch) + np.random.default_rng(seed).integers(
        -2, 3, (batch, len(even), devices + 1)
    )
    moved[:, :, 0] = 0
    moved = np.minimum(np.maximum(moved, 0), np.array(scheme.rows)[:, None])
    moved[:, :, -1] = scheme.rows
    moved.sort(axis=2)
    return moved


def rate(scheme: SchemePricer, bounds: np.ndarray[Any, Any], repeats: int = 7) -> float:
    """Strategies a second of processor time, the best of several batches."""
    scheme.latencies_s(bounds[:10])
    best = 0.0
    for _ in range(repeats):
        start = time.process_time()
        scheme.latencies_s(bounds)
        best = max(best, len(bounds) / (time.process_time() - start))
    return best


def measure(model: str, cluster: str, volumes: int) -> dict[str, Any]:
    """One line of the table."""
    problem = planning_problem(graph_of(model), load_cluster(cluster))
    pricer, devices = Pricer(problem), len(problem.devices)
    scheme = pricer.scheme(pooled_scheme(problem, volumes))
    batch = BATCH if devices < 8 else BATCH // 10
    return {
        "model": model,
        "cluster": cluster,
        "devices": devices,
        "volumes": volumes,
        "random_per_s": round(rate(scheme, random_bounds(scheme, devices, batch))),
        "near_equal_per_s": round(rate(scheme, near_equal_bounds(scheme, devices, batch))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning_rate", description=__doc__)
    parser.parse_args()
    cases = [("vgg16-body", cluster, 5) for cluster in GRID]
    cases += [("vgg16-body", "LC", 5), ("yolov2", "DB-NC", 6), ("resnet50", "DB-NC", 6)]
    print(f"{'model':<14} {'cluster':<8} {'devices':>7} {'volumes':>7} {'random/s':>10} {'near equal/s':>13}")
    rows = []
    for case in cases:
        rows.append(row := measure(*case))
        print(
            f"{row['model']:<14} {row['cluster']:<8} {row['devices']:>7} {row['volumes']:>7} "
            f"{row['random_per_s']:>10,} {row['near_equal_per_s']:>13,}",
            flush=True,
        )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "planning_rate.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
