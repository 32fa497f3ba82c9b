"""`python -m benchmarks.streaming`: images a second with objective throughput, beside onnxruntime alone.

Two local peers of one thread each, and one onnxruntime session of two threads, in turn; every turn is a
stream of its own. Prints, and with --docs writes into docs/benchmarks.md, medians over the turns and the
slowest and fastest one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

from benchmarks.local import MODELS, PEERS, model_and_feed, spread
from benchmarks.sections import table, write_section
from distredge.runtime.reference import WholeModel
from distredge.runtime.session import InferenceSession

RESULTS = Path(__file__).parent / "results" / "streaming.json"
IN_FLIGHT = 4


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS), help="of the zoo, by commas")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender (default: 5)")
    parser.add_argument("--turn-s", type=float, default=4.0, help="about how long a turn lasts (default: 4)")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/benchmarks.md")
    args = parser.parse_args()
    rows = []
    for name in args.models.split(","):
        rows.append(measured(name, args.rounds, args.turn_s))
        print(_line(rows[-1]), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    if args.docs:
        write_section("streaming", "python -m benchmarks.streaming --docs", _section(rows))


def measured(name: str, rounds: int, turn_s: float) -> dict[str, Any]:
    """One model: images per second of every turn, by contender."""
    model, feed = model_and_feed(name)
    whole = WholeModel(model.source, PEERS)
    rates: dict[str, list[float]] = {"onnxruntime": [], "distredge": []}
    with InferenceSession(model, local_peers=PEERS, objective="throughput") as session:

        def alone(frames: int) -> None:
            for _ in range(frames):
                whole.run(feed)

        def dealt(frames: int) -> None:
            for _ in session.stream(repeat(feed, frames), IN_FLIGHT, ordered=True):
                pass

        contenders: dict[str, Callable[[int], None]] = {"onnxruntime": alone, "distredge": dealt}
        dealt(2 * IN_FLIGHT)
        alone(2)
        frames = max(2 * IN_FLIGHT, round(turn_s * _rate(alone, 3)))
        for _ in range(rounds):
            for contender, run in contenders.items():
                rates[contender].append(_rate(run, frames))
        ways = len(session.plan.ways)
    ratios = [a / b for a, b in zip(rates["distredge"], rates["onnxruntime"], strict=True)]
    return {"model": name, "ways": ways, "frames": frames, "images_per_second": rates, "ratios": ratios}


def _rate(run: Callable[[int], None], frames: int) -> float:
    begin = time.perf_counter()
    run(frames)
    return frames / (time.perf_counter() - begin)


def _line(row: dict[str, Any]) -> str:
    rates = row["images_per_second"]
    return (
        f"{row['model']:<14} onnxruntime {spread(rates['onnxruntime'])}, distredge "
        f"{spread(rates['distredge'])} images/s over {row['ways']} ways; ratio {spread(row['ratios'], 3)}"
    )


def _section(rows: list[dict[str, Any]]) -> str:
    lines = [
        (
            row["model"],
            spread(row["images_per_second"]["onnxruntime"]),
            spread(row["images_per_second"]["distredge"]),
            str(row["ways"]),
            spread(row["ratios"], 3),
        )
        for row in rows
    ]
    head = ("model", "onnxruntime, 2 threads", "objective throughput, 2 peers", "ways", "ratio")
    return (
        "## Streams with objective throughput\n\n"
        f"Images a second over two local peers of one thread each, {IN_FLIGHT} frames in flight, beside one "
        "onnxruntime session of two threads, in turn: medians of the turns, and the slowest and fastest.\n\n"
        f"{table(head, lines)}"
    )


if __name__ == "__main__":
    main()
