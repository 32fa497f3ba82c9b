"""`sudo python -m benchmarks.agreement`: predicted against measured latency, unequal hosts, shaped links.

Makes testbeds of two and of three hosts with a CPU share and a link each, starts a one-thread peer on every
host, measures them as a user would (`profile_session`), and runs every policy's strategy on them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.sections import table, write_section
from distredge.control.profiling import profile_session
from distredge.control.race import race
from distredge.graph import zoo
from distredge.plan.draw import random_strategy
from distredge.plan.policy import PlanningProblem, get_policy
from distredge.plan.strategy import Strategy
from distredge.runtime.reference import random_feed
from distredge.runtime.session import InferenceSession
from distredge.sim.pricing import Pricer
from launch.testbed.bed import Testbed
from launch.testbed.config import load_testbed

MODELS = ("vgg16-body", "resnet50", "squeezenet")
HOSTS = ((("0.8", 200), ("0.4", 100)), (("0.8", 200), ("0.4", 100), ("0.3", 50)))
"""CPU share and link in Mbit/s of each host, by testbed."""
POLICIES = ("equal", "modnn", "aofl", "coedge", "search")
RESULTS = Path(__file__).parent / "results" / "agreement.json"


@contextlib.contextmanager
def peers(hosts: Sequence[tuple[str, int]], folder: Path) -> Iterator[Path]:
    """A peer on each host; their hosts file."""
    lines = [
        "[testbed]",
        "name = agree",
        "subnet = 10.93.0.0/24",
        "ssh = no",
        "[requester]",
        "link_mbps = 1000",
    ]
    for at, (share, rate) in enumerate(hosts):
        lines += [f"[host:h{at}]", f"cpu = {share}", f"link_mbps = {rate}"]
    (folder / "bed.ini").write_text("\n".join(lines) + "\n")
    config = load_testbed(folder / "bed.ini")
    with Testbed(config) as bed, contextlib.ExitStack() as ending:
        file = ["[network]", "encryption = off"]
        for at in range(len(hosts)):
            address = f"{config.address(f'h{at}')}:9100"
            command = [sys.executable, "-m", "distredge", "peer", "--bind", f"tcp://{address}"]
            command += ["--plain", "--name", f"h{at}", "--threads", "1"]
            peer = bed.run(
                f"h{at}",
                command,
                cwd=os.getcwd(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            ending.callback(peer.wait)
            ending.callback(peer.terminate)
            peer.stdout.readline()
            file += [f"[provider:h{at}]", f"address = {address}"]
        (folder / "hosts.ini").write_text("\n".join(file) + "\n")
        yield folder / "hosts.ini"


def strategies_of(problem: PlanningProblem, drawn: int) -> dict[str, Strategy]:
    found = {name: get_policy(name).find_strategy(problem) for name in POLICIES}
    rng = random.Random(3)
    for at in range(drawn):
        found[f"random {at}"] = random_strategy(problem.graph, len(problem.devices), 3, rng)
    return found


def compare(
    model: str, hosts: Sequence[tuple[str, int]], drawn: int, rounds: int
) -> Iterator[dict[str, Any]]:
    """Rows of one model on one testbed."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"{model}.onnx"
        zoo.write(zoo.get(model).build(None, 0), path)
        with (
            peers(hosts, Path(name)) as file,
            InferenceSession(path, hosts=file, policy="equal") as session,
        ):
            graph = session.model.graph
            feed = random_feed({n: (graph.tensors[n].shape, graph.tensors[n].dtype) for n in graph.inputs}, 0)
            problem = profile_session(session, feed, budget_s=20).problem(graph)
            found, pricer = strategies_of(problem, drawn), Pricer(problem)
            for policy, raced in race(session, feed, found, rounds=rounds, frames=3).items():
                predicted = pricer.latency_s(found[policy])
                yield {
                    "model": model,
                    "hosts": [{"cpu": float(share), "link_mbps": mbps} for share, mbps in hosts],
                    "policy": policy,
                    "predicted_s": predicted,
                    "measured_s": raced.latency_s,
                    "error": predicted / raced.latency_s - 1,
                }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, help="of the zoo")
    parser.add_argument("--random", type=int, default=1, help="random strategies (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default: 3)")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/benchmarks.md")
    args = parser.parse_args()
    rows = []
    for model in args.models:
        for hosts in HOSTS:
            for row in compare(model, hosts, args.random, args.rounds):
                rows.append(row)
                predicted, measured = row["predicted_s"] * 1e3, row["measured_s"] * 1e3
                where = f"{model:<12} {len(hosts)} hosts  {row['policy']:<9}"
                times = f"predicted {predicted:>7.1f} ms, measured {measured:>7.1f} ms"
                print(f"{where} {times}, error {row['error']:>6.1%}", flush=True)
    middle = statistics.median(abs(row["error"]) for row in rows)
    print(f"median error {middle:.1%}")
    RESULTS.write_text(json.dumps({"median_error": middle, "rows": rows}, indent=1) + "\n")
    if args.docs:
        write_section("agreement", "python -m benchmarks.agreement --docs", section(rows, middle))


def section(rows: Sequence[dict[str, Any]], middle: float) -> str:
    """Predicted against measured, as Markdown: a line for each strategy, a column for each model."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    cells = {(len(row["hosts"]), row["policy"], row["model"]): row for row in rows}
    lines = []
    for hosts, policy in dict.fromkeys(key[:2] for key in cells):
        found = [cells.get((hosts, policy, model)) for model in models]
        lines.append((f"{hosts} hosts, {policy}", *(_cell(row) if row else "" for row in found)))
    return f"Median error {middle:.1%}.\n\n" + table(("predicted / measured, ms", *models), lines)


def _cell(row: dict[str, Any]) -> str:
    return f"{row['predicted_s'] * 1e3:.0f} / {row['measured_s'] * 1e3:.0f} ({row['error']:+.0%})"


if __name__ == "__main__":
    main()
