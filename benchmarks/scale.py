"""`python -m benchmarks.scale`: planning for 16, 64, 256 and 1,024 simulated devices.

Devices of all four synthetic types with links of 50 to 300 Mbit/s, drawn by a seed; the requester has 1,000.
Each size is planned in a process of its own by `auto` with its usual budget. Beside it: the best device
alone, and what `search` finds with a hundred times as long among the 48 strongest. Prints a table, and with
--docs writes it into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from dataclasses import replace

from benchmarks.planning_grid import graph_of
from benchmarks.report import Report, Row
from distredge.cluster.hosts import Cluster, Provider, Requester
from distredge.control.problem import planning_problem
from distredge.plan.policy import PlanningProblem, decide, get_policy
from distredge.sim.bound import lower_bound
from distredge.sim.pricing import Pricer
from policies.large import among, strongest

SIZES = (16, 64, 256, 1024)
TYPES = ("jetson-xavier", "jetson-tx2", "jetson-nano", "raspberry-pi-4")
RATES_MBPS = (50.0, 100.0, 200.0, 300.0)
LONG_S, AMONG = 200.0, 48


def main() -> None:
    parser = REPORT.parser(__doc__, ("vgg16-body", "resnet50"))
    parser.add_argument("--long-s", type=float, default=LONG_S, help="of the search beside it; 0: none")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "SIZE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(planned(args.one[0], int(args.one[1]), args.long_s)))
        return
    models = args.models.split(",")
    REPORT.write((_in_a_process(m, size, args.long_s) for m in models for size in SIZES), docs=args.docs)


def problem_of(model: str, size: int, seed: int = 0) -> PlanningProblem:
    """So many devices; those of a smaller cluster are the first of a larger one."""
    rng = random.Random(seed)
    providers = []
    for at in range(size):
        kind, rate = rng.choice(TYPES), rng.choice(RATES_MBPS)
        providers.append(
            Provider(name=f"{at}-{kind}", profile=f"synthetic-{kind}", uplink_mbps=rate, downlink_mbps=rate)
        )
    requester = Requester(uplink_mbps=1000.0, downlink_mbps=1000.0)
    return planning_problem(graph_of(model), Cluster(f"{size} devices", requester, tuple(providers)))


def planned(model: str, size: int, long_s: float) -> Row:
    """One size: seconds from the problem to the plan, what it is worth, and the memory that it took."""
    decide(problem_of(model, 4), "auto")  # compiled code is loaded
    problem = problem_of(model, size)
    before_mb = _peak_mb()
    begun = time.perf_counter()
    decision = decide(problem, "auto")
    planning_s = time.perf_counter() - begun
    memory_mb = _peak_mb() - before_mb
    begun = time.perf_counter()
    pricer = Pricer(problem)
    latency_s = pricer.latency_s(decision.strategy)
    bound_s = lower_bound(problem)
    pricing_s = time.perf_counter() - begun
    alone = get_policy("offload").find_strategy(problem)
    return {
        "model": model,
        "devices": size,
        "used": sum(any(s.part(d) for s in decision.strategy.merged.splits) for d in range(size)),
        "planning_s": planning_s,
        "pricing_s": pricing_s,
        "memory_mb": memory_mb,
        "latency_s": latency_s,
        "bound_s": bound_s,
        "alone_s": pricer.latency_s(alone),
        "long_s": _long(problem, long_s, pricer) if long_s else None,
    }


def _long(problem: PlanningProblem, seconds: float, pricer: Pricer) -> float:
    """What a long search among many devices finds."""
    chosen = strongest(problem, AMONG)
    few = replace(among(problem, chosen), budget_s=seconds)
    found = get_policy("search").find_strategy(few)
    return pricer.latency_s(found.embedded(chosen, len(problem.devices)))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _in_a_process(model: str, size: int, long_s: float) -> Row:
    words = ["-m", "benchmarks.scale", "--one", model, str(size), "--long-s", str(long_s)]
    done = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, text=True, check=True)
    found: Row = json.loads(done.stdout)
    return found


def _cells(row: Row) -> tuple[str, ...]:
    long_s = row["long_s"]
    return (
        row["model"],
        str(row["devices"]),
        str(row["used"]),
        f"{row['planning_s']:.1f}",
        f"{row['memory_mb']:.0f}",
        f"{row['latency_s'] * 1e3:.2f}",
        f"{row['alone_s'] / row['latency_s']:.2f}",
        f"{row['latency_s'] / long_s - 1:+.1%}" if long_s else "",
    )


REPORT = Report(
    "scale",
    "Many devices",
    "`auto` with its usual two seconds on simulated clusters of all four synthetic types, links of 50 to "
    "300 Mbit/s. *Planning* is the whole decision; *memory*, what the process grew by. *Over long*: "
    f"latency over that of a search {LONG_S:g} s long among the {AMONG} strongest devices.",
    ("model", "devices", "used", "planning, s", "memory, MB", "ms", "alone / it", "over long"),
    _cells,
)

if __name__ == "__main__":
    main()
