"""`python -m benchmarks.latency`: one frame at a time over two local peers, beside onnxruntime alone.

Two local peers of one thread each, which are measured first, and one onnxruntime session of two threads, in
turn. Prints, and with --docs writes into docs/benchmarks.md, medians over the turns and the fastest and
slowest one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.local import MODELS, PEERS, model_and_feed, spread
from benchmarks.sections import table, write_section
from distredge.control.profiling import profile_session
from distredge.plan.policy import find_strategy
from distredge.runtime.reference import WholeModel
from distredge.runtime.session import InferenceSession

RESULTS = Path(__file__).parent / "results" / "latency.json"
POLICIES = ("proportional", "auto")
PROFILE_S = 10.0
WARM_UP = 3
"""Frames of a turn that do not count: the first ones under another plan are slower."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--models", default=",".join([*MODELS, "yolov2"]), help="of the zoo, by commas")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each contender (default: 8)")
    parser.add_argument("--frames", type=int, default=5, help="that count in a turn (default: 5)")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/benchmarks.md")
    args = parser.parse_args()
    rows = []
    for name in args.models.split(","):
        rows.append(measured(name, args.rounds, args.frames))
        print("  ".join(_cells(rows[-1])), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    if args.docs:
        write_section("latency", "python -m benchmarks.latency --docs", _section(rows))


def measured(name: str, rounds: int, frames: int) -> dict[str, Any]:
    """One model: the median seconds of every turn, by contender."""
    model, feed = model_and_feed(name)
    whole = WholeModel(model.source, PEERS)
    turns: dict[str, list[float]] = {"onnxruntime": [], **{policy: [] for policy in POLICIES}}
    with InferenceSession(model, local_peers=PEERS, policy="equal") as session, session.undisturbed():
        problem = profile_session(session, feed, budget_s=PROFILE_S).problem(model.graph)
        strategies = {policy: find_strategy(problem, policy) for policy in POLICIES}
        for _ in range(rounds):
            turns["onnxruntime"].append(_turn(lambda: whole.run(feed), frames))
            for policy, strategy in strategies.items():
                session.use(strategy)
                turns[policy].append(_turn(lambda: session.run(None, feed), frames))
    return {"model": name, "seconds": turns}


def _turn(run: Callable[[], object], frames: int) -> float:
    seconds = []
    for at in range(WARM_UP + frames):
        begin = time.perf_counter()
        run()
        if at >= WARM_UP:
            seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    seconds: dict[str, list[float]] = row["seconds"]
    alone = seconds["onnxruntime"]
    found = [row["model"], f"{statistics.median(alone) * 1e3:.1f}"]
    for policy in POLICIES:
        found.append(f"{statistics.median(seconds[policy]) * 1e3:.1f}")
        found.append(spread([a / b for a, b in zip(seconds[policy], alone, strict=True)], 3))
    return tuple(found)


def _section(rows: list[dict[str, Any]]) -> str:
    head = ("model", "onnxruntime, ms", *(cell for policy in POLICIES for cell in (f"{policy}, ms", "ratio")))
    return (
        "## One frame at a time, locally\n\n"
        "Latency over two local peers of one thread each, beside one onnxruntime session of two threads, in "
        "turn: medians, and the smallest and largest ratio of turns side by side.\n\n"
        f"{table(head, [_cells(row) for row in rows])}"
    )


if __name__ == "__main__":
    main()
