"""`sudo python -m benchmarks.overlap`: `auto` with overlap inside a frame against `auto` without it.

For each setting of the links it makes a testbed of four real hosts, deploys to it, profiles it on each model,
plans twice, and runs both plans in turn. Writes benchmarks/results/overlap.json, in which what was left out
keeps its figures, and a section of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from statistics import geometric_mean, quantiles
from typing import Any

from benchmarks.hosts import MODELS, PRIORITY, SHARES, Controller
from benchmarks.sections import table, write_section
from distredge.cluster.hosts import load_hosts
from distredge.control.problem import planning_problem
from distredge.control.race import race
from distredge.graph.importer import load_model
from distredge.plan.options import PlanningOptions
from distredge.plan.policy import find_strategy
from distredge.runtime.reference import random_feed
from distredge.runtime.session import InferenceSession
from distredge.sim.pricing import Pricer
from launch.testbed.bed import Testbed
from launch.testbed.config import HostConfig, Subnet, TestbedConfig

RESULTS = Path(__file__).parent / "results" / "overlap.json"
LINKS = {"200, 100, 100, 50": (200, 100, 100, 50), "50 each": (50, 50, 50, 50)}
WAYS = {"off": False, "on": True}
WARM_UP = {"raw": 3, "exact": 12}
"""By the wire: frames after a change of plan that do not count. Packing begins when links are known."""
HEADING = """## Overlap inside a frame

A [testbed](design/testbed.md) of four hosts on one machine with CPU shares of 0.6, 0.4, 0.3 and 0.2. `auto`
plans for two seconds with lanes (*on*) and for two without (*off*, `--no-overlap`), by what `fab profile` has
just measured; then both plans run in turn. Medians of single frames and, in brackets, quartiles. *Raw* sends
rows as they are, which is what the planner counts with (*predicted*: its ratio); *exact*, the default, packs
them where that pays.

"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overlap", description=__doc__)
    parser.add_argument("models", nargs="*", choices=[*MODELS, []], help="only these (default: all)")
    parser.add_argument("--links", choices=LINKS, help="only this setting (default: all)")
    parser.add_argument("--budget-s", type=float, default=25, help="profiling of each host (default: 25)")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each plan (default: 6)")
    args = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the testbed is taken down
    for links in [args.links] if args.links else LINKS:
        with tempfile.TemporaryDirectory() as folder, Testbed(bed_of(LINKS[links])) as bed:
            controller = Controller(Path(folder), bed)
            controller.fab("deploy", "start")
            for name in args.models or MODELS:
                found = measure(controller, name, args.budget_s, args.rounds)
                results[f"{name}, {links}"] = {"model": name, "links": links, **found}
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
                print(f"{name}, {links}:", json.dumps(found), flush=True)
            controller.fab("undeploy")
    write_section("overlap", "sudo python -m benchmarks.overlap", section(results))


def bed_of(rates_mbps: tuple[int, ...]) -> TestbedConfig:
    """Four hosts on such links."""
    hosts = tuple(
        HostConfig(f"h{i}", s, r, r) for i, (s, r) in enumerate(zip(SHARES, rates_mbps, strict=True))
    )
    requester = HostConfig("requester", None, 1000, 1000)
    return TestbedConfig("overlap", hosts, requester, Subnet("10.95.0.0/24"), steady=True)


def measure(controller: Controller, name: str, budget_s: float, rounds: int) -> dict[str, Any]:
    """Profiles, plans with and without overlap, and runs both in turn."""
    path, size = controller.profile(name, budget_s)
    model = load_model(path, {size.partition("=")[0]: MODELS[name]})
    cluster = load_hosts(controller.measured)
    problems = {
        way: planning_problem(model.graph, cluster, PlanningOptions(overlap=on)) for way, on in WAYS.items()
    }
    pricer = Pricer(problems["on"])
    strategies = {way: find_strategy(problem) for way, problem in problems.items()}
    graph = model.graph
    feed = random_feed({n: (graph.tensors[n].shape, graph.tensors[n].dtype) for n in graph.inputs}, 0)
    measured = {}
    for wire, warm_up in WARM_UP.items():
        with InferenceSession(model, hosts=cluster, policy="equal", wire=wire) as session:
            raced = race(session, feed, strategies, rounds=rounds, warm_up=warm_up)
        measured[wire] = {way: quantiles(raced[way].seconds, n=4) for way in WAYS}
    return {
        "when": time.strftime("%Y-%m-%d %H:%M"),
        "load": os.getloadavg()[0],
        "lanes": strategies["on"].has_lanes,
        "predicted_s": {way: pricer.latency_s(strategy) for way, strategy in strategies.items()},
        "measured_s": measured,
    }


def section(results: dict[str, Any]) -> str:
    """The table, as Markdown."""
    lines, ratios = [], {wire: [] for wire in WARM_UP}
    for found in results.values():
        line = [found["model"], found["links"]]
        for wire, measured in found["measured_s"].items():
            ratios[wire].append(measured["off"][1] / measured["on"][1])
            line += [_quartiles(measured[way]) for way in WAYS] + [f"{ratios[wire][-1]:.2f}"]
            if wire == "raw":
                line.append(f"{found['predicted_s']['off'] / found['predicted_s']['on']:.2f}")
        lines.append(line)
    columns = ("raw, off, ms", "on, ms", "off / on", "predicted", "exact, off, ms", "on, ms", "off / on")
    means = ", ".join(f"{wire} {geometric_mean(each):.2f}" for wire, each in ratios.items())
    head = ("model", "links, Mbit/s", *columns)
    return HEADING + table(head, lines) + f"\nGeometric means of off / on: {means}.\n"


def _quartiles(seconds: list[float]) -> str:
    low, middle, high = (f"{each * 1e3:.0f}" for each in seconds)
    return f"{middle} ({low} to {high})"


if __name__ == "__main__":
    main()
