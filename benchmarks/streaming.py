"""`python -m benchmarks.streaming`: images a second with objective throughput, beside onnxruntime alone.

Two local peers of one thread each, and one onnxruntime session of two threads, in turn; every turn is a
stream of its own. Prints, and with --docs writes into docs/benchmarks.md, medians over the turns and the
slowest and fastest one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import repeat

from benchmarks.local import MODELS, PEERS, in_turn, model_and_feed, ratios, spread
from benchmarks.report import Report, Row
from distredge.runtime.reference import WholeModel
from distredge.runtime.session import InferenceSession

IN_FLIGHT = 4


def main() -> None:
    parser = REPORT.parser(__doc__, MODELS)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender (default: 5)")
    parser.add_argument("--turn-s", type=float, default=4.0, help="about how long a turn lasts (default: 4)")
    args = parser.parse_args()
    rows = (measured(name, args.rounds, args.turn_s) for name in args.models.split(","))
    REPORT.write(rows, docs=args.docs)


def measured(name: str, rounds: int, turn_s: float) -> Row:
    """One model: images per second of every turn, by contender."""
    model, feed = model_and_feed(name)
    whole = WholeModel(model.source, PEERS)
    with InferenceSession(model, local_peers=PEERS, objective="throughput") as session:

        def alone(frames: int) -> None:
            for _ in range(frames):
                whole.run(feed)

        def dealt(frames: int) -> None:
            for _ in session.stream(repeat(feed, frames), IN_FLIGHT, ordered=True):
                pass

        dealt(2 * IN_FLIGHT)
        alone(2)
        frames = max(2 * IN_FLIGHT, round(turn_s * _rate(alone, 3)))
        turns = {"onnxruntime": partial(_rate, alone, frames), "distredge": partial(_rate, dealt, frames)}
        rates = in_turn(rounds, turns)
        ways = len(session.plan.ways)
    return {"model": name, "ways": ways, "frames": frames, "images_per_second": rates}


def _rate(run: Callable[[int], None], frames: int) -> float:
    begin = time.perf_counter()
    run(frames)
    return frames / (time.perf_counter() - begin)


def _cells(row: Row) -> tuple[str, ...]:
    alone, dealt = (row["images_per_second"][name] for name in ("onnxruntime", "distredge"))
    return row["model"], spread(alone), spread(dealt), str(row["ways"]), spread(ratios(dealt, alone), 3)


REPORT = Report(
    "streaming",
    "Streams with objective throughput",
    f"Images a second over two local peers of one thread each, {IN_FLIGHT} frames in flight, beside one "
    "onnxruntime session of two threads, in turn: medians of the turns, and the slowest and fastest.",
    ("model", "onnxruntime, 2 threads", "objective throughput, 2 peers", "ways", "ratio"),
    _cells,
)

if __name__ == "__main__":
    main()
