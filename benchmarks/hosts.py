"""`sudo python -m benchmarks.hosts`: every policy on four unequal hosts, measured beside predicted.

Makes a testbed of real hosts, deploys to it, and for each model runs `fab profile`, `distredge advise` and
`distredge compare --measure`, as a user would. Writes benchmarks/results/hosts.json, in which models that
were left out keep their figures, and a section of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.hosts_tables import write_docs
from distredge.graph import zoo
from launch.testbed.bed import Testbed
from launch.testbed.config import HostConfig, Subnet, TestbedConfig

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "hosts.json"
MODELS = {"pp-ocrv6-det": (1, 3, 640, 640), "resnet50": (1, 3, 224, 224), "vgg16": (1, 3, 224, 224)}
SHARES, RATES_MBPS = (0.6, 0.4, 0.3, 0.2), (200, 100, 100, 50)
HOSTS = tuple(HostConfig(f"h{i}", s, r, r) for i, (s, r) in enumerate(zip(SHARES, RATES_MBPS, strict=True)))
BED = TestbedConfig(
    "bench", HOSTS, HostConfig("requester", None, 1000, 1000), Subnet("10.94.0.0/24"), steady=True
)
PRIORITY = -10
"""Of what runs on this machine itself, so that other work does not slow the requester."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hosts", description=__doc__)
    parser.add_argument("models", nargs="*", choices=[*MODELS, []], help="only these (default: all)")
    parser.add_argument("--budget-s", type=float, default=40, help="profiling of each host (default: 40)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each policy (default: 5)")
    parser.add_argument("--docs-only", action="store_true", help="measure nothing")
    args = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not args.docs_only:
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
        with tempfile.TemporaryDirectory() as folder, Testbed(BED) as bed:
            controller = Controller(Path(folder), bed)
            controller.fab("deploy", "start")
            for name in args.models or MODELS:
                results[name] = controller.measure(name, args.budget_s, args.rounds)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            controller.fab("undeploy")
    write_docs(results)


class Controller:
    """The commands that a user gives.

    Args:
        folder: for models and hosts files.
        bed: is up.
    """

    def __init__(self, folder: Path, bed: Testbed) -> None:
        self._folder = folder
        self._hosts = folder / "hosts.ini"
        self._hosts.write_text(bed.hosts_file.read_text())
        self._environment = {**os.environ, "DISTREDGE_HOSTS": str(self._hosts)}

    def fab(self, *words: str) -> str:
        """Runs fab tasks on the hosts; what they print.

        Raises:
            SystemExit: a task failed.
        """
        return self._run("-m", "fabric", *words)

    @property
    def measured(self) -> Path:
        """The hosts file that `profile` writes."""
        return self._hosts.with_suffix(".measured.ini")

    def profile(self, name: str, budget_s: float) -> tuple[Path, str]:
        """Profiles all hosts on a model of the zoo; its file, and what `--input-shape` is for it."""
        model, shape = self._folder / f"{name}.onnx", MODELS[name]
        entry = zoo.get(name)
        zoo.write(entry.build(None if 0 in entry.shape else shape), model)
        size = f"{entry.input}={'x'.join(map(str, shape))}"
        words = ["--model", str(model), "--budget-s", str(budget_s), "--input-shape", size]
        print(self.fab("profile", *words), flush=True)
        return model, size

    def measure(self, name: str, budget_s: float, rounds: int) -> dict[str, Any]:
        """Profiles all hosts on a model of the zoo, asks for advice, and compares all policies there."""
        model, size = self.profile(name, budget_s)
        words = [str(model), "--hosts", str(self.measured), "--json", "--input-shape", size]
        advice = json.loads(self._run("-m", "distredge", "advise", *words))
        compare = ["compare", *words, "--measure", "--rounds", str(rounds), "--wire", "raw"]
        rows = json.loads(self._run("-m", "distredge", *compare))
        for row in rows:
            if "measured_latency_s" in row:
                measured, predicted = row["measured_latency_s"], row["latency_s"]
                error = predicted / measured - 1
                print(
                    f"{name:<13} {row['policy']:<13} measured {measured * 1e3:7.1f} ms, predicted "
                    f"{predicted * 1e3:7.1f} ms, {error:+.1%}",
                    flush=True,
                )
        return {
            "shape": MODELS[name],
            "when": time.strftime("%Y-%m-%d %H:%M"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
            "load": os.getloadavg()[0],
            "advised_gain": advice["latency_gain"],
            "policies": rows,
        }

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout


if __name__ == "__main__":
    main()
