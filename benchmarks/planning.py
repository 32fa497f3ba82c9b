"""`python -m benchmarks.planning`: every baseline, search and auto over the grid, with best known and bound.

Best known: benchmarks/best_known.json, remade by `python -m benchmarks.planning_best`; an answer that beats
it is taken into it. Writes benchmarks/results/planning.json. `python -m benchmarks.planning_tables` makes
tables of it.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import Any

from benchmarks.planning_best import store
from benchmarks.planning_grid import CELLS, RESULTS, load_best, problem_of, strategy_to_json
from distredge.plan.policy import PlanningProblem, decide, get_policy
from distredge.plan.strategy import Strategy
from distredge.sim.bound import lower_bound
from distredge.sim.pricing import Pricer

BASELINES = ("offload", "modnn", "mednn", "coedge", "deepthings", "deeperthings", "aofl")
SIMPLE = ("equal", "proportional", "lcpss")
SEARCH_S, AUTO_S = 0.3, 2.0
SEEDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=__doc__)
    parser.add_argument("cells", nargs="*", metavar="MODEL:CLUSTER", help="only these (default: all)")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="budgets count this process's processor time, of all threads: for a machine that others use",
    )
    args = parser.parse_args()
    if args.processor_time:
        time.perf_counter = time.process_time
    path = RESULTS / "planning.json"
    rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    get_policy("auto", evaluations=3000).find_strategy(problem_of(*CELLS[0]))  # compiles
    for model, cluster in [tuple(cell.split(":")) for cell in args.cells] or CELLS:
        key = f"{model} {cluster}"
        rows[key] = measure(key, problem_of(model, cluster))
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(rows, indent=1) + "\n")
        print(line(key, rows[key]), flush=True)


def measure(key: str, problem: PlanningProblem) -> dict[str, Any]:
    """One cell."""
    pricer = Pricer(problem)
    row: dict[str, Any] = {"bound_s": lower_bound(problem), "policies": {}}
    best: Strategy | None = None
    asked = [(name, replace(problem)) for name in (*BASELINES, *SIMPLE)]
    asked += [("search", replace(problem, seed=seed, budget_s=SEARCH_S)) for seed in range(SEEDS)]
    asked += [("auto", replace(problem, budget_s=AUTO_S))]
    for name, each in asked:
        wall, processor = time.perf_counter(), time.process_time()
        decision = decide(each, get_policy(name))
        found = {
            "latency_s": pricer.latency_s(decision.strategy),
            "planning_s": time.perf_counter() - wall,
            "processor_s": time.process_time() - processor,
            "winner": decision.winner,
        }
        row["policies"].setdefault(name, []).append(found)
        if best is None or found["latency_s"] < pricer.latency_s(best):
            best = decision.strategy
    assert best is not None
    known = load_best().get(key)
    latency = pricer.latency_s(best)
    if known is None or latency < known["latency_s"] * (1 - 1e-9):
        store(key, {**(known or {}), "latency_s": latency, "seed": None, "strategy": strategy_to_json(best)})
    return row


def line(key: str, row: dict[str, Any]) -> str:
    """What is printed of a cell."""
    best = load_best()[key]["latency_s"]
    each = {name: max(found["latency_s"] for found in many) for name, many in row["policies"].items()}
    baseline = min(BASELINES, key=lambda name: each[name])
    return (
        f"{key:<20} best {best * 1e3:8.2f} ms, bound {row['bound_s'] / best:.0%} of it, {baseline} "
        f"{each[baseline] / best:.3f}, search {each['search'] / best:.4f}, auto {each['auto'] / best:.4f}"
    )


if __name__ == "__main__":
    main()
