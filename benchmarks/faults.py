"""`python -m benchmarks.faults`: thousands of seeded runs in which everything goes wrong, on a virtual clock.

Prints the seed of a run in which an invariant does not hold, and exits 1; `--seed N` repeats exactly that
run, with its log.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from distredge.control.faults import run_seed, run_seeds, worlds
from distredge.sim.faults import Violation

BATCH = 250


def _run_batch(first: int, last: int) -> tuple[int | None, float]:
    """The first seed that fails, and processor seconds."""
    begin = time.process_time()
    found = run_seeds(first, min(BATCH, last - first))
    return None if found is None else found.seed, time.process_time() - begin


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many (default: 2000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--seed", type=int, help="this one only, with its log")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    args = parser.parse_args()
    if args.seed is not None:
        return _show(args.seed)
    worlds()
    last, seconds = args.first + args.seeds, 0.0
    with ProcessPoolExecutor(args.jobs) as pool:
        for failed, spent_s in pool.map(partial(_run_batch, last=last), range(args.first, last, BATCH)):
            seconds += spent_s
            if failed is not None:
                pool.shutdown(wait=False, cancel_futures=True)
                print(f"seed {failed} fails; see it with --seed {failed}")
                return 1
    print(f"{args.seeds} seeds, no violation; {args.seeds / seconds:.0f} seeds per second of one core's time")
    return 0


def _show(seed: int) -> int:
    try:
        done = run_seed(seed)
    except Violation as violation:
        print(*violation.log, sep="\n")
        return 1
    print(*done.log, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
