"""`python -m benchmarks.planning_links`: a link falls to a quarter; how good is the new plan, how soon?

In six cells each of the four links in turn. The plan in use is `search`'s after 200,000 evaluations; the
new one is `search`'s within 40 ms from there, since a new plan may take 50 ms in all. Best known: the best
of all of these and of three searches of a million evaluations, seeds 0 to 2. Writes
benchmarks/results/planning_links.json.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import Any

from benchmarks.planning_grid import RESULTS, load_best, problem_of
from benchmarks.planning_tables import write_docs
from distredge.cluster.network import Network
from distredge.plan.policy import PlanningProblem, get_policy
from distredge.plan.strategy import Strategy
from distredge.sim.pricing import Pricer

CELLS = tuple((m, c) for m in ("vgg16-body", "yolov2") for c in ("DA-NA", "DB-NB", "DC-NC"))
IN_USE, KNOWN, SEEDS, BUDGET_S = 200_000, 1_000_000, 3, 0.040


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning_links", description=__doc__)
    parser.add_argument("cells", nargs="*", metavar="MODEL:CLUSTER", help="only these (default: six)")
    parser.add_argument(
        "--docs", action="store_true", help="write all planning tables into docs/benchmarks.md"
    )
    args = parser.parse_args()
    path = RESULTS / "planning_links.json"
    rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    search(problem_of(*CELLS[0]), evaluations=3000)  # compiles
    for model, cluster in [tuple(cell.split(":")) for cell in args.cells] or CELLS:
        problem = problem_of(model, cluster)
        in_use = search(problem, evaluations=IN_USE)
        for device in range(len(problem.devices)):
            key = f"{model} {cluster} {problem.devices[device].name}"
            rows[key] = measure(with_quarter_link(problem, device), in_use, rows.get(key))
            RESULTS.mkdir(exist_ok=True)
            path.write_text(json.dumps(rows, indent=1) + "\n")
            best = rows[key]["best_s"]
            print(
                f"{key:<32} old plan {rows[key]['stale_s'] / best:.3f}, new {rows[key]['new_s'] / best:.3f} "
                f"in {rows[key]['planning_s'] * 1e3:.0f} ms",
                flush=True,
            )
    if args.docs:
        write_docs(json.loads((RESULTS / "planning.json").read_text()), load_best(), rows)


def measure(problem: PlanningProblem, in_use: Strategy, before: dict[str, Any] | None) -> dict[str, Any]:
    """One changed link: the plan in use and a quick new one, beside the best known."""
    begun = time.perf_counter()
    new = search(replace(problem, budget_s=BUDGET_S), starts=(in_use,))
    planning_s = time.perf_counter() - begun
    pricer = Pricer(problem)
    found = {"stale_s": pricer.latency_s(in_use), "new_s": pricer.latency_s(new), "planning_s": planning_s}
    known = [before["best_s"]] if before else []
    if not known:
        for seed in range(SEEDS):
            known.append(pricer.latency_s(search(replace(problem, seed=seed), evaluations=KNOWN)))
    return {**found, "best_s": min(*known, found["stale_s"], found["new_s"])}


def search(problem: PlanningProblem, **settings: object) -> Strategy:
    return get_policy("search", **settings).find_strategy(problem)


def with_quarter_link(problem: PlanningProblem, device: int) -> PlanningProblem:
    """The same problem with one device's link at a quarter of its rate, both ways."""
    network = problem.network
    links = list(network.links)
    links[device] = replace(
        links[device],
        uplink_mbps=links[device].uplink_mbps / 4,
        downlink_mbps=links[device].downlink_mbps / 4,
    )
    return replace(problem, network=Network(tuple(links), network.requester, network.access_point_mbps))


if __name__ == "__main__":
    main()
