"""`python -m benchmarks.osds`: what the learned policy is worth, beside search at equal effort.

For every cell and seed, in one run: the best baseline; OSDS in the paper's form and in the improved form,
each before and after polishing by search; the improved form without a gradient step ("noise alone"); search
alone at equal evaluations and at equal time. Best known: the entry in benchmarks/best_known.json where there
is one, else the best of everything here and of one long search.

Prints a table and writes benchmarks/results/osds.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from distredge.cluster.load import load_cluster
from distredge.control.problem import planning_problem
from distredge.graph import zoo
from distredge.graph.importer import load_model
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import Strategy
from policies.osds import OSDS
from policies.osds_baselines import baseline_strategies
from policies.parts import pricer_for
from policies.search import Search

CELLS = ("vgg16-body@DA-NA", "vgg16-body@DB-NB", "vgg16-body@DC-NC")
CELLS += ("yolov2@DA-NA", "yolov2@DB-NB", "yolov2@DC-NC")
RESULTS = Path(__file__).parent / "results"
BEST_KNOWN = Path(__file__).parent / "best_known.json"
POLISH_S = 0.3
LONG = 1_000_000
WAYS = ("baseline", "paper", "paper+search", "improved", "improved+search", "noise alone")
WAYS += ("search, evaluations", "search, time")


def measure(problem: PlanningProblem, seconds: float, paper_seconds: float) -> dict[str, Any]:
    """Every way's latency in one cell under one seed, and what it took."""
    price = pricer_for(problem).latency_s
    polish = replace(problem, budget_s=POLISH_S)
    found: dict[str, Any] = {}

    def note(way: str, ask: Callable[[], Strategy], **more: Any) -> Strategy:
        wall, processor = time.monotonic(), time.process_time()
        strategy = ask()
        found[way] = {
            "latency_s": price(strategy),
            "wall_s": round(time.monotonic() - wall, 2),
            "processor_s": round(time.process_time() - processor, 2),
            **more,
        }
        return strategy

    note("baseline", lambda: baseline_strategies(problem)[0])
    spent = 0
    for way, budget, settings in (
        ("paper", paper_seconds, {"as_in_paper": True}),
        ("improved", seconds, {}),
        ("noise alone", seconds, {"update_every": 1 << 60}),
    ):
        policy = OSDS(**settings)
        asked = replace(problem, budget_s=budget)
        strategy = note(way, lambda policy=policy, asked=asked: policy.find_strategy(asked))  # type: ignore[misc]
        found[way] |= policy.report
        if way == "improved":
            spent = int(policy.report["evaluations"])
        if way != "noise alone":
            note(
                f"{way}+search",
                lambda strategy=strategy: Search(starts=(strategy,)).find_strategy(polish),  # type: ignore[misc]
            )
    note("search, evaluations", lambda: Search(evaluations=spent).find_strategy(problem))
    note("search, time", lambda: Search().find_strategy(replace(problem, budget_s=seconds)))
    return found


def best_known(cell: str, problem: PlanningProblem, met: list[dict[str, Any]]) -> float:
    """The lowest latency known for a cell."""
    every = [entry["latency_s"] for found in met for entry in found.values()]
    model, cluster = cell.split("@")
    if BEST_KNOWN.exists():
        rows = json.loads(BEST_KNOWN.read_text())
        rows = rows.get("rows", rows) if isinstance(rows, dict) else rows
        every += [
            row["latency_s"]
            for row in rows
            if isinstance(row, dict) and (row.get("model"), row.get("cluster")) == (model, cluster)
        ]
    price = pricer_for(problem).latency_s
    every.append(price(Search(evaluations=LONG).find_strategy(replace(problem, seed=100))))
    return min(every)


def report(rows: list[dict[str, Any]]) -> None:
    """Each way's latency over the best known, by cell and seed, then the average and the worst."""
    print(f"{'cell':<20}{'seed':>5}{'best ms':>9}" + "".join(f"{way:>21}" for way in WAYS))
    gaps = []
    for row in rows:
        gaps.append([row["ways"][way]["latency_s"] / row["best_known_s"] - 1 for way in WAYS])
        line = "".join(f"{gap:>20.1%} " for gap in gaps[-1])
        print(f"{row['cell']:<20}{row['seed']:>5}{row['best_known_s'] * 1e3:>9.2f}{line}")
    for name, values in (("average", np.mean(gaps, axis=0)), ("worst", np.max(gaps, axis=0))):
        print(f"{name:<34}" + "".join(f"{gap:>20.1%} " for gap in values))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.osds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cells", nargs="+", default=CELLS, metavar="MODEL@CLUSTER")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the improved form (default: 60)")
    parser.add_argument("--paper-seconds", type=float, help="of the paper's form (default: the same)")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0 on (default: 1)")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count this process's processor time, not the clock's: all ways here use one thread",
    )
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "osds.json")
    args = parser.parse_args()
    if args.processor_time:
        time.perf_counter = time.process_time
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for cell in args.cells:
            model, cluster = cell.split("@")
            path = Path(folder) / f"{model}.onnx"
            if not path.exists():
                zoo.write(zoo.get(model).build(None, 0), str(path))
            problem = planning_problem(load_model(path).graph, load_cluster(cluster))
            warm_up(problem)
            paper = args.paper_seconds or args.seconds
            met = [measure(replace(problem, seed=seed), args.seconds, paper) for seed in range(args.seeds)]
            best = best_known(cell, problem, met)
            rows += [
                {"cell": cell, "seed": seed, "best_known_s": best, "ways": found}
                for seed, found in enumerate(met)
            ]
            print(f"{cell}: done", flush=True)
    report(rows)
    args.output.parent.mkdir(exist_ok=True)
    clock = "processor" if args.processor_time else "wall"
    settings = {"clock": clock, "seconds": args.seconds, "paper_seconds": args.paper_seconds or args.seconds}
    machine = {"cores": os.cpu_count(), "load": os.getloadavg()}
    args.output.write_text(json.dumps({**settings, "machine": machine, "rows": rows}, indent=1) + "\n")
    print(f"written to {args.output}")


def warm_up(problem: PlanningProblem) -> None:
    """Compiles what the first call would compile on its own clock."""
    Search(evaluations=400).find_strategy(problem)
    for form in (True, False):
        OSDS(as_in_paper=form, episodes=100, side_by_side=8).find_strategy(replace(problem, budget_s=600.0))


if __name__ == "__main__":
    main()
