"""`python -m benchmarks.planning_best`: remakes benchmarks/best_known.json, cell by cell; it can be resumed.

For every cell of the grid the best of ten searches, seeds 0 to 9, of a million evaluations each, on the
simulator. A cell that is there already is kept, unless `--again`. It takes some minutes a cell: run it with
`nice` in the background. What another run beats (`benchmarks.planning`) it reports, and takes into the file
with `"seed": null`.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import Any

from benchmarks.planning_grid import (
    BEST_KNOWN,
    CELLS,
    graph_of,
    load_best,
    problem_of,
    strategy_from_json,
    strategy_to_json,
)
from distredge.plan.policy import PlanningProblem, get_policy
from distredge.sim.pricing import Pricer

SEARCHES, EVALUATIONS = 10, 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning_best", description=__doc__)
    parser.add_argument("cells", nargs="*", metavar="MODEL:CLUSTER", help="only these (default: all)")
    parser.add_argument("--again", action="store_true", help="search cells anew that are there already")
    args = parser.parse_args()
    wanted = [tuple(cell.split(":")) for cell in args.cells] or CELLS
    for model, cluster in wanted:
        key = f"{model} {cluster}"
        known = load_best().get(key)
        if (
            known
            and known.get("searches") == SEARCHES
            and still_true(known, model, cluster)
            and not args.again
        ):
            continue
        begun = time.perf_counter()
        found = search_cell(problem_of(model, cluster))
        better = known and not args.again and still_true(known, model, cluster)
        if known and better and known["latency_s"] < found["latency_s"]:
            found = {**found, **{k: known[k] for k in ("latency_s", "strategy")}, "seed": None}
        store(key, found)
        print(
            f"{key}: {found['latency_s'] * 1e3:.3f} ms, seed {found['seed']}, worst of ten "
            f"{max(found['all_latencies_s']) * 1e3:.3f} ms, {time.perf_counter() - begun:.0f} s",
            flush=True,
        )


def search_cell(problem: PlanningProblem) -> dict[str, Any]:
    """The best of ten searches."""
    pricer = Pricer(problem)
    found = []
    for seed in range(SEARCHES):
        search = get_policy("search", evaluations=EVALUATIONS)
        strategy = search.find_strategy(replace(problem, seed=seed))
        found.append((pricer.latency_s(strategy), seed, strategy))
    latency, seed, strategy = min(found, key=lambda each: each[:2])
    return {
        "latency_s": latency,
        "seed": seed,
        "searches": SEARCHES,
        "evaluations": EVALUATIONS,
        "all_latencies_s": [each[0] for each in found],
        "strategy": strategy_to_json(strategy),
    }


def still_true(known: dict[str, Any], model: str, cluster: str) -> bool:
    """Whether the simulator still says of a kept strategy what it said then."""
    problem = problem_of(model, cluster)
    strategy = strategy_from_json(known["strategy"])
    if not set(strategy.scheme.cuts) <= set(graph_of(model).cut_points):
        return False
    return abs(Pricer(problem).latency_s(strategy) / known["latency_s"] - 1) < 1e-9


def store(key: str, found: dict[str, Any]) -> None:
    """Writes one cell into the file; others, written meanwhile, stay."""
    best = load_best()
    best[key] = found
    order = {f"{model} {cluster}": at for at, (model, cluster) in enumerate(CELLS)}
    lines = [f"{json.dumps(k)}: {json.dumps(best[k])}" for k in sorted(best, key=lambda k: order.get(k, 999))]
    part = BEST_KNOWN.with_suffix(".part")
    part.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    part.replace(BEST_KNOWN)


if __name__ == "__main__":
    main()
