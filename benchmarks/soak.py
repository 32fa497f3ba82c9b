"""`python -m benchmarks.soak`: a stream at full load for long; memory and open files must stay as they are.

SqueezeNet frames over four local peers. Every few seconds the resident memory and the open files of this
process and of every peer are noted; what counts is the growth after the first minute. Exits 1 if a peer grew
by 2 % or has more files open.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

import numpy as np
import psutil

from distredge.graph import zoo
from distredge.graph.importer import load_model
from distredge.runtime.session import InferenceSession

SETTLED_S, LOOK_S = 60.0, 10.0
LIMIT = 0.02

Look = list[tuple[int, int]]
"""Resident bytes and open files of each process, the requester first."""


def look(processes: list[psutil.Process]) -> Look:
    return [(process.memory_info().rss, process.num_fds()) for process in processes]


def run(minutes: float, model: str) -> tuple[int, Look, Look]:
    """Frames, and the looks after the first minute and at the end."""
    entry = zoo.get(model)
    image = np.random.default_rng(0).standard_normal(entry.shape).astype("float32")
    imported = load_model(entry.build().SerializeToString())
    with InferenceSession(imported, local_peers=4) as session:
        processes = [psutil.Process(), *(psutil.Process(pid) for pid in session.local_pids)]
        start, frames, next_s, looks = time.monotonic(), 0, SETTLED_S, list[Look]()
        end = start + SETTLED_S + 60 * minutes

        def images() -> Iterator[np.ndarray]:
            while time.monotonic() < end:
                yield image

        for _ in session.stream(images(), in_flight=8):
            frames += 1
            now_s = time.monotonic() - start
            if now_s >= next_s:
                next_s += LOOK_S
                looks.append(look(processes))
        return frames, looks[0], looks[-1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="after the first one (default: 30)")
    parser.add_argument("--model", default="squeezenet", help="of the zoo (default: squeezenet)")
    args = parser.parse_args()
    frames, first, last = run(args.minutes, args.model)
    is_good = True
    print(f"{frames} frames in {args.minutes + SETTLED_S / 60:g} minutes")
    for at, ((before, files), (after, files_after)) in enumerate(zip(first, last, strict=True)):
        growth = after / before - 1
        name = f"peer{at - 1}" if at else "requester"
        print(f"{name}: {before / 2**20:.1f} MiB, {growth:+.2%}; {files} files open, then {files_after}")
        is_good = is_good and (not at or (growth < LIMIT and files_after <= files))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
