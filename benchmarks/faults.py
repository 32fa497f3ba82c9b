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


def _failed_seed(first: int, last: int) -> int | None:
    found = run_seeds(first, min(BATCH, last - first))
    return None if found is None else found.seed


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
    start = time.perf_counter()
    last = args.first + args.seeds
    with ProcessPoolExecutor(args.jobs) as pool:
        for failed in pool.map(partial(_failed_seed, last=last), range(args.first, last, BATCH)):
            if failed is not None:
                pool.shutdown(wait=False, cancel_futures=True)
                print(f"seed {failed} fails; see it with --seed {failed}")
                return 1
    seconds = time.perf_counter() - start
    rate = args.seeds / seconds / args.jobs
    print(f"{args.seeds} seeds, no violation; {rate:.0f} seeds a second on each of {args.jobs} cores")
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
