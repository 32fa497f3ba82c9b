"""`python -m benchmarks`: throughput and overhead over real local peers, beside onnxruntime alone.

Everything compared is measured in one run, interleaved, because machines are shared and noisy. Prints
tables and writes benchmarks/results/runtime.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from distredge.graph import zoo
from distredge.runtime.reference import WholeModel, random_feed
from distredge.runtime.session import InferenceSession

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--frames", type=int, default=40, help="frames per contender (default: 40)")
    parser.add_argument("--rounds", type=int, default=4, help="interleaved rounds (default: 4)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = {
            "machine": {"cpu": platform.machine(), "python": platform.python_version()},
            "speedup": speedup(Path(folder), args.frames, args.rounds),
            "overhead": overhead(Path(folder)),
        }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "runtime.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nwritten to {path}")


def speedup(folder: Path, frames: int, rounds: int) -> list[dict[str, Any]]:
    """vgg16-body over one and over two one-thread peers, and onnxruntime on one and on two threads."""
    model = write_model("vgg16-body", folder)
    feed = feed_of(model)
    contenders: dict[str, Any] = {
        "onnxruntime, 1 thread": WholeModel(model, 1),
        "onnxruntime, 2 threads": WholeModel(model, 2),
    }
    for peers in (1, 2):
        name = f"distredge, {peers} peer{'s' * (peers > 1)} of one thread"
        contenders[name] = InferenceSession(model, local_peers=peers, policy="equal", threads=1)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    try:
        for _ in range(rounds):
            for name, contender in contenders.items():
                run = as_function(contender, feed)
                run()
                for _ in range(max(1, frames // rounds)):
                    start = time.perf_counter()
                    run()
                    times[name].append(time.perf_counter() - start)
    finally:
        for contender in contenders.values():
            if isinstance(contender, InferenceSession):
                contender.close()
    return table("vgg16-body, one frame at a time", times, "distredge, 1 peer of one thread")


def overhead(folder: Path) -> list[dict[str, Any]]:
    """What a frame costs beside computing: a single small convolution over four peers."""
    model = write_model("tiny", folder)
    feed = feed_of(model)
    times: dict[str, list[float]] = {"onnxruntime, 1 thread": [], "distredge, 4 peers": []}
    whole = WholeModel(model, 1)
    with InferenceSession(model, local_peers=4, policy="equal", threads=1) as session:
        for contender, spent in zip((whole, session), times.values(), strict=True):
            run = as_function(contender, feed)
            for at in range(1100):
                start = time.perf_counter()
                run()
                if at >= 100:
                    spent.append(time.perf_counter() - start)
        rows = table("tiny, one frame at a time", times, "onnxruntime, 1 thread")
        start = time.perf_counter()
        answered = sum(1 for _ in session.stream((feed for _ in range(2000)), in_flight=16))
        rate = answered / (time.perf_counter() - start)
    print(f"  {'distredge, 4 peers, 16 in flight':<36} {rate:>8.0f} images/s")
    return [*rows, {"name": "distredge, 4 peers, 16 in flight", "images_per_second": rate}]


def write_model(name: str, folder: Path) -> Path:
    entry = zoo.get(name)
    path = folder / f"{name}.onnx"
    zoo.write(entry.build(None, 0), str(path))
    return path


def feed_of(model: Path) -> dict[str, np.ndarray[Any, Any]]:
    from distredge.graph.importer import load_model

    graph = load_model(model).graph
    return random_feed({n: (graph.tensors[n].shape, graph.tensors[n].dtype) for n in graph.inputs}, 0)


def as_function(contender: Any, feed: dict[str, Any]) -> Any:
    if isinstance(contender, WholeModel):
        return lambda: contender.run(feed)
    return lambda: contender.run(None, feed)


def table(title: str, times: dict[str, list[float]], base: str) -> list[dict[str, Any]]:
    """Prints and returns medians, spread, and images a second as a ratio to `base`."""
    print(f"\n{title}\n  {'':<36} {'median ms':>10} {'p10':>8} {'p90':>8} {'images/s':>9} {'ratio':>6}")
    reference = statistics.median(times[base])
    rows = []
    for name, spent in times.items():
        median = statistics.median(spent)
        p10, p90 = np.quantile(spent, [0.1, 0.9])
        row = {
            "name": name,
            "frames": len(spent),
            "latency_s": {"median": median, "p10": float(p10), "p90": float(p90)},
            "images_per_second": 1 / median,
            "ratio": reference / median,
        }
        rows.append(row)
        print(
            f"  {name:<36} {median * 1e3:>10.2f} {p10 * 1e3:>8.2f} {p90 * 1e3:>8.2f} {1 / median:>9.1f} "
            f"{row['ratio']:>6.2f}"
        )
    return rows


if __name__ == "__main__":
    main()
