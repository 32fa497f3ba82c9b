"""`python -m benchmarks.osds`: what the learned policy is worth, beside search at equal effort.

Over the 32 cells of vgg16-body and yolov2, seed 0: the improved form. In six named cells, three seeds, also:
the paper's form, both before and after polishing by search; the improved form without a gradient step
("noise alone"); search at equal evaluations and at equal time. Writes benchmarks/results/osds.json, cell by
cell: what is there already is kept, unless `--again`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.planning_grid import CELLS, RESULTS, load_best, problem_of
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import Strategy
from policies.osds import OSDS
from policies.osds_baselines import baseline_strategies
from policies.parts import pricer_for
from policies.search import Search

MODELS = ("vgg16-body", "yolov2")
NAMED = tuple(f"{model} {cluster}" for model in MODELS for cluster in ("DA-NA", "DB-NB", "DC-NC"))
SEEDS = 3
POLISH_S = 0.3
PATH = RESULTS / "osds.json"


class Measuring:
    """One cell under one seed.

    Args:
        problem: the cell.
        seconds: of training, in either form.

    Attributes:
        found: by way, latency and what it took.
    """

    def __init__(self, problem: PlanningProblem, seconds: float) -> None:
        self.problem = replace(problem, budget_s=seconds)
        self.found: dict[str, dict[str, float]] = {}

    def improved(self) -> None:
        """The best baseline, and the improved form."""
        self._note("baseline", lambda: baseline_strategies(self.problem)[0])
        self._train("improved", OSDS())

    def everything(self) -> None:
        """All other ways."""
        self._train("paper", OSDS(as_in_paper=True))
        self._train("noise alone", OSDS(update_every=1 << 60))
        spent = int(self.found["improved"]["evaluations"])
        self._note("search, equal evaluations", lambda: Search(evaluations=spent).find_strategy(self.problem))
        self._note("search, equal time", lambda: Search(threads=1).find_strategy(self.problem))

    def _train(self, way: str, policy: OSDS) -> None:
        trained = self._note(way, lambda: policy.find_strategy(self.problem))
        self.found[way] |= policy.report
        polish = Search(starts=(trained,), threads=1)
        self._note(f"{way} + search", lambda: polish.find_strategy(replace(self.problem, budget_s=POLISH_S)))

    def _note(self, way: str, ask: Callable[[], Strategy]) -> Strategy:
        wall, processor = time.monotonic(), time.process_time()
        strategy = ask()
        self.found[way] = {
            "latency_s": pricer_for(self.problem).latency_s(strategy),
            "wall_s": round(time.monotonic() - wall, 2),
            "processor_s": round(time.process_time() - processor, 2),
        }
        return strategy


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.osds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cells", nargs="*", metavar="MODEL:CLUSTER", help="only these (default: all 32)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of training (default: 15)")
    parser.add_argument("--again", action="store_true", help="measure anew what is there already")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count this process's processor time, not the clock's: all ways here use one thread",
    )
    args = parser.parse_args()
    if args.processor_time:
        time.perf_counter = time.process_time
    rows: dict[str, Any] = json.loads(PATH.read_text()) if PATH.exists() and not args.again else {}
    wanted = [cell.replace(":", " ") for cell in args.cells]
    wanted = wanted or [f"{model} {cluster}" for model, cluster in CELLS if model in MODELS]
    warm_up(problem_of(*CELLS[0]))
    runs = [(cell, 0) for cell in sorted(wanted, key=lambda cell: cell not in NAMED)]
    runs += [(cell, seed) for seed in range(1, SEEDS) for cell in wanted if cell in NAMED]
    for cell, seed in runs:
        if f"{cell} {seed}" in rows:
            continue
        model, cluster = cell.split()
        measuring = Measuring(problem_of(model, cluster, seed), args.seconds)
        measuring.improved()
        if cell in NAMED:
            measuring.everything()
        rows[f"{cell} {seed}"] = {
            "seconds": args.seconds,
            "clock": "processor" if args.processor_time else "wall",
            "ways": measuring.found,
        }
        RESULTS.mkdir(exist_ok=True)
        PATH.write_text(json.dumps(rows, indent=1) + "\n")
        print(line(cell, seed, measuring.found), flush=True)


def line(cell: str, seed: int, found: dict[str, dict[str, float]]) -> str:
    """What is printed of a cell: how far each way is above best known."""
    best = load_best()[cell]["latency_s"]
    ways = (f"{way} {found[way]['latency_s'] / best - 1:.1%}" for way in found)
    return f"{cell:<20} seed {seed}: {', '.join(ways)}"


def warm_up(problem: PlanningProblem) -> None:
    """Compiles what the first call would compile on its own clock."""
    Search(evaluations=400).find_strategy(problem)
    for form in (True, False):
        OSDS(as_in_paper=form, episodes=100, side_by_side=8).find_strategy(replace(problem, budget_s=600.0))


if __name__ == "__main__":
    main()
