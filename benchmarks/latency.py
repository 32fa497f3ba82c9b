"""`python -m benchmarks.latency`: one frame at a time over two local peers, beside onnxruntime alone.

Two local peers of one thread each, which are measured first, and one onnxruntime session of two threads, in
turn. Prints, and with --docs writes into docs/benchmarks.md, medians over the turns and the fastest and
slowest one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

from benchmarks.local import MODELS, PEERS, in_turn, model_and_feed, ratios, spread
from benchmarks.report import Report, Row
from distredge.control.profiling import profile_session
from distredge.plan.policy import find_strategy
from distredge.plan.strategy import Strategy
from distredge.runtime.reference import WholeModel
from distredge.runtime.session import InferenceSession

POLICIES = ("proportional", "auto")
PROFILE_S = 10.0
WARM_UP = 3
"""Frames of a turn that do not count: the first ones under another plan are slower."""


def main() -> None:
    parser = REPORT.parser(__doc__, [*MODELS, "yolov2"])
    parser.add_argument("--rounds", type=int, default=8, help="turns of each contender (default: 8)")
    parser.add_argument("--frames", type=int, default=5, help="that count in a turn (default: 5)")
    args = parser.parse_args()
    rows = (measured(name, args.rounds, args.frames) for name in args.models.split(","))
    REPORT.write(rows, docs=args.docs)


def measured(name: str, rounds: int, frames: int) -> Row:
    """One model: the median seconds of every turn, by contender."""
    model, feed = model_and_feed(name)
    whole = WholeModel(model.source, PEERS)
    with InferenceSession(model, local_peers=PEERS, policy="equal") as session, session.undisturbed():
        problem = profile_session(session, feed, budget_s=PROFILE_S).problem(model.graph)

        def by_strategy(strategy: Strategy) -> float:
            session.use(strategy)
            return _turn(lambda: session.run(None, feed), frames)

        turns = {"onnxruntime": partial(_turn, lambda: whole.run(feed), frames)}
        turns |= {policy: partial(by_strategy, find_strategy(problem, policy)) for policy in POLICIES}
        return {"model": name, "seconds": in_turn(rounds, turns)}


def _turn(run: Callable[[], object], frames: int) -> float:
    seconds = []
    for at in range(WARM_UP + frames):
        begin = time.perf_counter()
        run()
        if at >= WARM_UP:
            seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def _cells(row: Row) -> tuple[str, ...]:
    seconds: dict[str, list[float]] = row["seconds"]
    alone = seconds["onnxruntime"]
    found = [row["model"], f"{statistics.median(alone) * 1e3:.1f}"]
    for policy in POLICIES:
        found.append(f"{statistics.median(seconds[policy]) * 1e3:.1f}")
        found.append(spread(ratios(seconds[policy], alone), 3))
    return tuple(found)


REPORT = Report(
    "latency",
    "One frame at a time, locally",
    "Latency over two local peers of one thread each, beside one onnxruntime session of two threads, in "
    "turn: medians, and the smallest and largest ratio of turns side by side.",
    ("model", "onnxruntime, ms", *(cell for policy in POLICIES for cell in (f"{policy}, ms", "ratio"))),
    _cells,
)

if __name__ == "__main__":
    main()
