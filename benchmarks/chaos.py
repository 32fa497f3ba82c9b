"""`python -m benchmarks.chaos`: random kills and halts of real peers under a stream; nothing may be lost.

SqueezeNet frames over four local peers. One random peer is killed every few seconds (SIGKILL; the session
starts it again), then, in a second run, one is stopped and goes on later (SIGSTOP, SIGCONT). Every answer is
compared with what the plans give. Prints frames, faults and the longest gap between two answers; exits 1 if
an answer is wrong or missing, or the gap is over the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from distredge.graph import zoo
from distredge.graph.importer import load_model
from distredge.runtime.reference import WholeModel
from distredge.runtime.session import InferenceSession

LONGEST_GAP_S = 2.0
TOLERANCE = 3e-5
"""Of the output's peak: different plans may differ in the last bits."""
IMAGES = 5


@dataclass
class Chaos:
    """What one run showed."""

    how: str
    frames: int
    faults: int
    longest_gap_s: float
    wrong: int
    seconds: float

    @property
    def is_good(self) -> bool:
        return self.wrong == 0 and self.longest_gap_s <= LONGEST_GAP_S


def run(
    how: str,
    faults: int,
    *,
    peers: int = 4,
    every_s: float = 3.0,
    seed: int = 0,
    model: str = "squeezenet",
    cache_dir: Path | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Chaos:
    """Streams frames until so many faults have happened, and for one more interval.

    Args:
        how: `kill` or `stop`.
        faults: how many.
        peers: local ones.
        every_s: seconds from one fault to the next; a stopped peer goes on halfway.
        seed: of peers, images and moments.
        model: of the zoo.
        cache_dir: where weights are kept.
        progress: is told of each fault.
    """
    rng = random.Random(seed)
    entry = zoo.get(model)
    imported = load_model(entry.build().SerializeToString(), cache_dir=cache_dir)
    draw = np.random.default_rng(seed)
    images = [draw.standard_normal(entry.shape).astype("float32") for _ in range(IMAGES)]
    whole = WholeModel(imported.source)
    expected = [whole.run({entry.input: image}) for image in images]
    with InferenceSession(imported, local_peers=peers, cache_dir=cache_dir) as session:
        return _stream(session, images, expected, how, faults, every_s, rng, progress)


def _stream(
    session: InferenceSession,
    images: list[np.ndarray],
    expected: list[list[np.ndarray]],
    how: str,
    faults: int,
    every_s: float,
    rng: random.Random,
    progress: Callable[[str], None],
) -> Chaos:
    done = Chaos(how, 0, 0, 0.0, 0, 0.0)
    stopped: int | None = None
    sent = 0
    start = last = time.monotonic()
    next_s = start + every_s
    go_on_s = float("inf")
    is_over = False

    def frames() -> Iterator[np.ndarray]:
        nonlocal sent
        while not is_over:
            sent += 1
            yield images[(sent - 1) % IMAGES]

    for outputs in session.stream(frames(), in_flight=4):
        now = time.monotonic()
        done.longest_gap_s = max(done.longest_gap_s, now - last)
        last = now
        wanted = expected[done.frames % IMAGES]
        done.frames += 1
        for found, right in zip(outputs, wanted, strict=True):
            done.wrong += not np.abs(found - right).max() <= TOLERANCE * np.abs(right).max()
        if now >= go_on_s and stopped is not None:
            os.kill(stopped, signal.SIGCONT)
            stopped, go_on_s = None, float("inf")
        if now < next_s:
            continue
        if done.faults == faults:
            is_over = True
            continue
        next_s += every_s
        pid = rng.choice([pid for pid in session.local_pids if psutil.pid_exists(pid)])
        os.kill(pid, signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        if how == "stop":
            stopped, go_on_s = pid, now + every_s / 2
        done.faults += 1
        progress(
            f"{how} {done.faults}/{faults}: {done.frames} frames, longest gap {done.longest_gap_s:.2f} s"
        )
    done.wrong += sent - done.frames
    done.seconds = time.monotonic() - start
    return done


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=30, help="of each kind (default: 30)")
    parser.add_argument("--how", choices=["kill", "stop"], action="append", help="default: both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = []
    for how in args.how or ["kill", "stop"]:
        result = run(how, args.faults, seed=args.seed, progress=lambda text: print(text, file=sys.stderr))
        results.append(result)
        if not args.json:
            print(
                f"{how}: {result.frames} frames in {result.seconds:.0f} s, {result.faults} faults, "
                f"longest gap {result.longest_gap_s:.2f} s, {result.wrong} wrong or missing"
            )
    if args.json:
        print(json.dumps([asdict(result) for result in results]))
    return 0 if all(result.is_good for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
