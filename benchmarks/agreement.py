"""`sudo python -m benchmarks.agreement`: predicted against measured latency, on shaped links.

Makes a testbed, starts a one-thread peer on each host, and runs every strategy on them. Peers get real-time
priority, so that other work on this machine does not count; do not use more computing peers than cores.
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

from distredge.cluster.network import Link, Network
from distredge.cluster.profile import DeviceProfile
from distredge.graph import zoo
from distredge.graph.importer import Model, load_model
from distredge.plan.draw import random_strategy
from distredge.plan.policy import Device, PlanningProblem, get_policy
from distredge.plan.strategy import Strategy
from distredge.runtime.profiling import measure_profile
from distredge.runtime.reference import random_feed
from distredge.runtime.session import InferenceSession
from distredge.sim.pricing import Pricer
from launch.testbed.bed import Testbed
from launch.testbed.config import load_testbed

PAYLOAD_SHARE = 0.955
"""Of a nominal rate: the rest is headers."""
LATENCY_S, FIXED_S = 30e-6, 80e-6
POLICIES = ("equal", "modnn", "aofl", "coedge", "search")
WARM, FRAMES = 3, 10


def problem_of(model: Model, profile: DeviceProfile, rates_mbps: Sequence[float]) -> PlanningProblem:
    """What the hosts of the testbed are to a planner."""

    def link(mbps: float) -> Link:
        return Link(mbps * PAYLOAD_SHARE, mbps * PAYLOAD_SHARE, LATENCY_S, FIXED_S)

    devices = tuple(Device(f"h{at}", profile) for at in range(len(rates_mbps)))
    return PlanningProblem(model.graph, devices, Network(tuple(map(link, rates_mbps)), link(1000)))


@contextlib.contextmanager
def hosts(rates_mbps: Sequence[float], folder: Path) -> Iterator[Path]:
    """Peers on shaped links, and their hosts file."""
    lines = [
        "[testbed]",
        "name = agree",
        "subnet = 10.93.0.0/24",
        "ssh = no",
        "[requester]",
        "link_mbps = 1000",
    ]
    for at, rate in enumerate(rates_mbps):
        lines += [f"[host:h{at}]", f"link_mbps = {rate}"]
    (folder / "bed.ini").write_text("\n".join(lines) + "\n")
    config = load_testbed(folder / "bed.ini")
    # all of it is on this machine
    file = ["[requester]", "uplink_mbps = 1000", "[network]", "encryption = off"]
    with Testbed(config) as bed:
        peers = []
        try:
            for at in range(len(rates_mbps)):
                address = f"{config.address(f'h{at}')}:9100"
                command = [sys.executable, "-m", "distredge", "peer", "--bind", f"tcp://{address}"]
                command += ["--name", f"h{at}", "--threads", "1", "--plain"]
                peers.append(
                    bed.run(
                        f"h{at}",
                        command,
                        cwd=os.getcwd(),
                        stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL,
                        text=True,
                    )
                )
                file += [f"[provider:h{at}]", f"address = {address}"]
            for peer in peers:
                peer.stdout.readline()
                prioritise(peer.pid, os.SCHED_RR)
            prioritise(os.getpid(), os.SCHED_RR)
            (folder / "hosts.ini").write_text("\n".join(file) + "\n")
            yield folder / "hosts.ini"
        finally:
            prioritise(os.getpid(), os.SCHED_OTHER)  # or else the next testbed could not be made
            for peer in peers:
                peer.terminate()
            for peer in peers:
                peer.wait()


def prioritise(pid: int, policy: int) -> None:
    """Priority of all threads; in the root group, since others have no real-time budget."""
    roots = [
        fields[1]
        for fields in map(str.split, Path("/proc/mounts").read_text().splitlines())
        if fields[2] == "cgroup" and "cpu" in fields[3].split(",")
    ]
    for thread in os.listdir(f"/proc/{pid}/task"):
        for root in roots[:1]:
            Path(root, "tasks").write_text(thread)
        os.sched_setscheduler(int(thread), policy, os.sched_param(int(policy == os.SCHED_RR)))


def strategies_of(problem: PlanningProblem, drawn: int) -> dict[str, Strategy]:
    found = {name: get_policy(name).find_strategy(problem) for name in POLICIES}
    rng = random.Random(3)
    for at in range(drawn):
        found[f"random {at}"] = random_strategy(problem.graph, len(problem.devices), 3, rng)
    return found


def measure(session: InferenceSession, strategy: Strategy, feed: dict[str, Any]) -> float:
    """The median latency, in seconds."""
    session.use(strategy)
    for _ in range(WARM + FRAMES):
        session.run(None, feed)
    return statistics.median(times.latency_s for times in session.frame_times[-FRAMES:])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__)
    parser.add_argument("--models", nargs="+", default=["vgg16-body"], help="of the zoo")
    parser.add_argument("--mbps", nargs="+", type=float, default=[200, 50], help="one rate per host")
    parser.add_argument("--random", type=int, default=3, help="random strategies (default: 3)")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model_name in args.models:
            path = folder / f"{model_name}.onnx"
            zoo.write(zoo.get(model_name).build(), path)
            model = load_model(path)
            problem = problem_of(model, measure_profile(model, budget_s=30), args.mbps)
            pricer, found = Pricer(problem), strategies_of(problem, args.random)
            shapes = {
                n: (model.graph.tensors[n].shape, model.graph.tensors[n].dtype) for n in model.graph.inputs
            }
            feed = random_feed(shapes, 0)
            with (
                hosts(args.mbps, folder) as file,
                InferenceSession(model, hosts=file, policy="equal") as session,
            ):
                for policy, strategy in found.items():
                    measured, predicted = (
                        measure(session, strategy, feed),
                        pricer.timeline(strategy).latency_s,
                    )
                    row = {"model": model_name, "policy": policy, "predicted_s": predicted}
                    rows.append({**row, "measured_s": measured, "error": predicted / measured - 1})
                    if not args.json:
                        print(
                            f"{model_name:<14} {policy:<12} predicted {predicted * 1e3:>8.1f} ms, measured "
                            f"{measured * 1e3:>8.1f} ms, error {predicted / measured - 1:>6.1%}",
                            flush=True,
                        )
    middle = statistics.median(abs(row["error"]) for row in rows)
    print(json.dumps(rows) if args.json else f"median error {middle:.1%}")


if __name__ == "__main__":
    main()
