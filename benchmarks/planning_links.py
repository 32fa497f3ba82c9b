"""`python -m benchmarks.planning_links`: a link falls to a quarter; how good is the new plan, how soon?

In six cells each of the four links in turn. The plan in use is `search`'s after 200,000 evaluations; the
new one is `distredge.control.replan`'s in 50 ms, from the plan in use alone, and with plans made ahead for
links at a third of their rate (2 s for all four). Best known: the best of all of these and of two searches of
half a million evaluations, seeds 0 and 1; kept, so that only a first run takes minutes. Writes
benchmarks/results/planning_links.json.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import Any

from benchmarks.planning_grid import RESULTS, problem_of
from distredge.control.replan import plans_ahead, replan, with_slower_link
from distredge.plan.policy import PlanningProblem, get_policy
from distredge.plan.strategy import Strategy
from distredge.sim.pricing import Pricer

CELLS = tuple((m, c) for m in ("vgg16-body", "yolov2") for c in ("DA-NA", "DB-NB", "DC-NC"))
IN_USE, KNOWN, SEEDS = 200_000, 500_000, 2
PATH = RESULTS / "planning_links.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning_links", description=__doc__)
    parser.add_argument("cells", nargs="*", metavar="MODEL:CLUSTER", help="only these (default: six)")
    args = parser.parse_args()
    rows: dict[str, Any] = json.loads(PATH.read_text()) if PATH.exists() else {}
    search(problem_of(*CELLS[0]), evaluations=3000)  # compiles
    for model, cluster in [tuple(cell.split(":")) for cell in args.cells] or CELLS:
        problem = problem_of(model, cluster)
        in_use = search(problem, evaluations=IN_USE)
        spare = plans_ahead(problem, in_use)
        for device in range(len(problem.devices)):
            key = f"{model} {cluster} {problem.devices[device].name}"
            rows[key] = measure(with_slower_link(problem, device, 4), in_use, spare, rows.get(key))
            RESULTS.mkdir(exist_ok=True)
            PATH.write_text(json.dumps(rows, indent=1) + "\n")
            best = rows[key]["best_s"]
            print(
                f"{key:<32} old plan {rows[key]['stale_s'] / best:.3f}, new {rows[key]['new_s'] / best:.3f}, "
                f"with plans made ahead {rows[key]['ahead_s'] / best:.3f}, "
                f"in {rows[key]['planning_s'] * 1e3:.0f} ms",
                flush=True,
            )


def measure(
    problem: PlanningProblem, in_use: Strategy, spare: tuple[Strategy, ...], before: dict[str, Any] | None
) -> dict[str, Any]:
    """One changed link: the plan in use and quick new ones, beside the best known."""
    pricer = Pricer(problem)
    found = {"stale_s": pricer.latency_s(in_use), "planning_s": 0.0}
    for name, starts in (("new_s", ()), ("ahead_s", spare)):
        begun = time.perf_counter()
        new = replan(problem, in_use, spare=starts)
        found["planning_s"] = max(found["planning_s"], time.perf_counter() - begun)
        found[name] = pricer.latency_s(new)
    known = [before["best_s"]] if before else []
    if not known:
        for seed in range(SEEDS):
            known.append(pricer.latency_s(search(replace(problem, seed=seed), evaluations=KNOWN)))
    return {**found, "best_s": min(*known, found["stale_s"], found["new_s"], found["ahead_s"])}


def search(problem: PlanningProblem, **settings: object) -> Strategy:
    return get_policy("search", **settings).find_strategy(problem)


if __name__ == "__main__":
    main()
