"""`python -m benchmarks.switching`: plans changed under a stream; the longest gap, and the peers' memory.

Two local peers run a model under one of two strategies in turn, three frames in flight. Prints the median
and the longest time between answers, and the largest resident memory of a peer around the switches over that
in the steady state.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from itertools import repeat

import psutil

from distredge.graph import zoo
from distredge.graph.importer import load_model
from distredge.graph.model import Graph
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.runtime.reference import random_feed
from distredge.runtime.session import InferenceSession

IN_FLIGHT = 3


class Memory:
    """Resident bytes of processes, looked at all the time."""

    def __init__(self, pids: tuple[int, ...]) -> None:
        self.largest = [0] * len(pids)
        self._processes = [psutil.Process(pid) for pid in pids]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def now(self) -> list[int]:
        return [process.memory_info().rss for process in self._processes]

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.largest = [max(pair) for pair in zip(self.largest, self.now(), strict=True)]

    def close(self) -> None:
        self._over.set()
        self._thread.join()


def two_strategies(graph: Graph, same_cut: bool) -> list[Strategy]:
    """Other shares, and unless the cut is the same, no part in common: each switch builds sessions."""
    middle = len(graph.cut_points) // 2
    found = []
    for cut, shares in ((middle, [0.5, 0.5]), (middle if same_cut else middle - 1, [0.6, 0.4])):
        scheme = PartitionScheme((graph.cut_points[cut],))
        volumes = find_volumes(graph, scheme)
        decisions = tuple(SplitDecision.from_shares(volume.rows, shares) for volume in volumes)
        found.append(Strategy(scheme, decisions))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.switching", description=__doc__)
    parser.add_argument("--model", default="vgg16", help="of the zoo (default: vgg16)")
    parser.add_argument("--switches", type=int, default=4)
    parser.add_argument("--frames", type=int, default=20, help="from one switch to the next")
    parser.add_argument("--same-cut", action="store_true", help="plans share their sessions")
    args = parser.parse_args()
    model = load_model(zoo.get(args.model).build().SerializeToString())
    graph = model.graph
    feed = random_feed({n: (graph.tensors[n].shape, graph.tensors[n].dtype) for n in graph.inputs}, 0)
    strategies = two_strategies(graph, args.same_cut)
    with InferenceSession(model, local_peers=2, policy="equal") as session:
        session.use(strategies[0])
        for _ in session.stream(repeat(feed, args.frames), IN_FLIGHT):
            pass
        memory = Memory(session.local_pids)
        steady = memory.now()
        gaps, last = [], time.monotonic()
        for at, _ in enumerate(session.stream(repeat(feed, args.frames * (args.switches + 1)), IN_FLIGHT)):
            now = time.monotonic()
            gaps.append(now - last)
            last = now
            if at and at % args.frames == 0:
                session.use(strategies[at // args.frames % 2], wait=False)
        memory.close()
    gaps = gaps[IN_FLIGHT:]
    middle, longest = statistics.median(gaps), max(gaps)
    growth = max(most / before for most, before in zip(memory.largest, steady, strict=True))
    print(
        f"{args.model}: {args.switches} switches in {len(gaps)} frames; {middle * 1e3:.0f} ms a frame, "
        f"longest {longest * 1e3:.0f} ms ({longest / middle:.2f} times); memory {growth:.2f} times "
        f"{max(steady) / 2**20:.0f} MiB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
