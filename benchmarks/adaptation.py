"""`sudo python -m benchmarks.adaptation`: under a stream a link falls and returns, and a device is halved.

Four emulated hosts. Five streams meet the same changes: one that adapts, its plans made for throughput; one
that adapts by an actor of OSDS; and three under fixed plans for the conditions at the start: those of
`search`, of OSDS, and of the best baseline. The adapting streams are also compared with what planning
afresh, for throughput, measures under the conditions after each change. Writes a timeline and a table into
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

from benchmarks.agreement import peers
from benchmarks.sections import DOCUMENT, table, write_section
from distredge.cluster.scaled import ScaledTimes
from distredge.control.adapt import Adaptation
from distredge.control.profiling import profile_session
from distredge.graph import zoo
from distredge.plan.objective import Objective
from distredge.plan.policy import PlanningProblem, find_strategy, get_policy
from distredge.plan.strategy import Strategy
from distredge.runtime.reference import random_feed
from distredge.runtime.session import InferenceSession
from distredge.sim.pricing import Pricer
from launch.testbed.bed import Testbed

HOSTS = (("0.6", 200), ("0.4", 100), ("0.3", 100), ("0.2", 50))
BASELINES = ("coedge", "aofl", "modnn", "mednn", "deepthings", "offload")
CHANGES = ("start", "link of h0 falls to 20 Mbit/s", "link of h0 is back", "h0 at half its share")
PHASE_S, MET_AFTER_S = 12.0, 5.0
SMOOTH_S = 3.0
IN_FLIGHT = 8
STREAM = Objective.parse("throughput")
TRAINING_S = 30.0
ADAPTING, BY_ACTOR = "adapting", "adapting, osds"
RESULTS = Path(__file__).parent / "results" / "adaptation.json"
PICTURE = DOCUMENT.parent / "pictures" / "adaptation.png"


def change(bed: Testbed, number: int) -> None:
    """Brings about what CHANGES says."""
    share, rate = HOSTS[0]
    bed.set(
        "h0", link_mbps=20 if number == 1 else rate, cpu=float(share) / 2 if number == 3 else float(share)
    )


def conditions(problem: PlanningProblem, number: int) -> PlanningProblem:
    """The problem as it is after a change, for whoever plans afresh."""
    links, devices = list(problem.network.links), list(problem.devices)
    if number == 1:
        links[0] = replace(
            links[0], uplink_mbps=0.1 * links[0].uplink_mbps, downlink_mbps=0.1 * links[0].downlink_mbps
        )
    if number == 3:
        devices[0] = replace(devices[0], times=ScaledTimes(devices[0].times, 2.0))
    network = replace(problem.network, links=tuple(links))
    return replace(problem, devices=tuple(devices), network=network)


def stream(session: InferenceSession, feed: Any, bed: Testbed) -> list[float]:
    """When frames were answered, from the start, while one change after another comes about."""
    answered: list[float] = []
    start, done = time.monotonic(), 1
    frames = iter(repeat(feed))
    is_over = False

    def source() -> Iterator[Any]:
        while not is_over:
            yield next(frames)

    for _ in session.stream(source(), in_flight=IN_FLIGHT):
        now = time.monotonic() - start
        answered.append(now)
        if done < len(CHANGES) and now >= done * PHASE_S:
            change(bed, done)
            done += 1
        is_over = now >= len(CHANGES) * PHASE_S
    return answered


def rate_between(answered: Sequence[float], begin: float, end: float) -> float:
    return sum(begin <= at < end for at in answered) / (end - begin)


def until(feed: Any, end: float) -> Iterator[Any]:
    """A feed again and again, until then."""
    while time.monotonic() < end:
        yield feed


def fresh_rates(session: InferenceSession, feed: Any, bed: Testbed, problem: PlanningProblem) -> list[float]:
    """Images a second under each condition with a plan found for just that, of the same seconds of a stream
    as are counted after a change: dealing frames out finds its pace within some."""
    rates = []
    for number in range(len(CHANGES)):
        change(bed, number)
        session.use(find_strategy(replace(conditions(problem, number), budget_s=2.0), "auto"))
        begin = time.monotonic()
        answered = [time.monotonic() - begin for _ in session.stream(until(feed, begin + PHASE_S), IN_FLIGHT)]
        rates.append(rate_between(answered, MET_AFTER_S, PHASE_S))
    change(bed, 0)
    return rates


def measure(model: str) -> dict[str, Any]:
    """Everything, on a testbed of its own."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"{model}.onnx"
        zoo.write(zoo.get(model).build(None, 0), path)
        with peers(HOSTS, Path(name)) as file, InferenceSession(path, hosts=file, policy="equal") as session:
            bed = Testbed.load("agree")
            graph = session.model.graph
            feed = random_feed({n: (graph.tensors[n].shape, graph.tensors[n].dtype) for n in graph.inputs}, 0)
            problem = profile_session(session, feed, budget_s=20).problem(graph)
            streaming = replace(problem, objective=STREAM)
            osds: Any = get_policy("osds")
            learned = osds.find_strategy(replace(problem, budget_s=TRAINING_S))
            found = fixed_plans(problem) | {"osds, fixed": learned}
            timelines: dict[str, list[float]] = {}
            fresh = fresh_rates(session, feed, bed, streaming)
            for label, strategy in found.items():
                session.use(strategy)
                timelines[label] = stream(session, feed, bed)
                change(bed, 0)
            switches: dict[str, int] = {}
            for label, asked, first, actor in (
                (ADAPTING, streaming, find_strategy(streaming, "auto"), None),
                (BY_ACTOR, problem, learned, osds.agent),
            ):
                session.use(first)
                adaptation = Adaptation(asked, actor=actor)
                session.adapt(adaptation)
                timelines[label] = stream(session, feed, bed)
                switches[label] = adaptation.switches
                change(bed, 0)
            return {"model": model, "fresh": fresh, "switches": switches, "timelines": timelines}


def fixed_plans(problem: PlanningProblem) -> dict[str, Strategy]:
    """That of `search`, and of the best baseline."""
    pricer = Pricer(problem)
    strategies = {name: get_policy(name).find_strategy(problem) for name in BASELINES}
    best = min(strategies, key=lambda name: pricer.latency_s(strategies[name]))
    return {"search, fixed": find_strategy(problem, "search"), f"{best}, fixed": strategies[best]}


def section(result: dict[str, Any]) -> str:
    lines = []
    for label, answered in result["timelines"].items():
        rates = [
            rate_between(answered, number * PHASE_S + MET_AFTER_S, (number + 1) * PHASE_S)
            for number in range(len(CHANGES))
        ]
        lines.append((label, *(f"{rate:.2f}" for rate in rates)))
    lines.append(("planned afresh", *(f"{rate:.2f}" for rate in result["fresh"])))
    hosts = ", ".join(f"{share} of a core at {rate} Mbit/s" for share, rate in HOSTS)
    return (
        f"### Changes under a stream\n\n{result['model']} on four hosts "
        f"({hosts}), {IN_FLIGHT} in flight. "
        f"Images a second from {MET_AFTER_S:g} s after each change on. The adapting streams changed "
        f"their plans {' and '.join(str(count) for count in result['switches'].values())} times.\n\n"
        + table(("plan", *CHANGES), lines)
        + f"\n![images a second over time](pictures/{PICTURE.name})\n"
    )


def draw(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
    for label, answered in result["timelines"].items():
        times = [0.5 * at for at in range(int(2 * SMOOTH_S), int(2 * len(CHANGES) * PHASE_S) + 1)]
        axes.plot(times, [rate_between(answered, t - SMOOTH_S, t) for t in times], label=label)
    for number, rate in enumerate(result["fresh"]):
        begin, end = number * PHASE_S, (number + 1) * PHASE_S
        axes.hlines(rate, begin, end, colors="black", linestyles="dotted", label=None if number else "afresh")
        axes.axvline(begin, color="grey", linewidth=0.5)
        axes.text(begin + 0.2, 0.02, CHANGES[number], fontsize=7, transform=axes.get_xaxis_transform())
    axes.set_xlabel("seconds")
    axes.set_ylabel(f"images a second, over the last {SMOOTH_S:g} s")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adaptation", description=__doc__)
    parser.add_argument("--model", default="vgg16-body", help="of the zoo (default: vgg16-body)")
    parser.add_argument("--docs", action="store_true", help="write the picture and the table into docs/")
    args = parser.parse_args()
    result = measure(args.model)
    RESULTS.write_text(json.dumps(result) + "\n")
    text = section(result)
    print(text)
    if args.docs:
        draw(result, PICTURE)
        write_section("adaptation", "python -m benchmarks.adaptation --docs", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
