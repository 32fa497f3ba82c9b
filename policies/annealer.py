"""The annealing run of one planning problem: strategies in, better strategies out."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from distredge.graph.model import Graph
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.sim.kernel import new_work
from distredge.sim.packed import pack
from distredge.sim.program import new_program
from policies.annealing import Limits, State, anneal, copy_state, new_state, price_state, seed_random
from policies.parts import memory_limits, pricer_for

_CHUNK = 256
"""Evaluations between two looks at the clock."""


class Annealer:
    """One problem, laid out for the compiled search.

    Args:
        problem: what is asked.
        cuts: candidate cuts, in topological order.
        scheme: keep this partition scheme and search its split decisions only.
    """

    def __init__(
        self, problem: PlanningProblem, cuts: Sequence[str], scheme: PartitionScheme | None = None
    ) -> None:
        graph = problem.graph
        self.problem = problem
        self.cuts = tuple(cuts)
        self.devices = len(problem.devices)
        self.packed = pack(graph, pricer_for(problem).times, problem.network)
        self.nodes = np.array([graph.producer[cut] for cut in self.cuts], dtype=np.int64)
        size = len(self.cuts) + 1
        self._programs = [new_program(self.packed, size) for _ in range(2)]
        self._work = new_work(self.packed, size)
        self._state, self._tried = (new_state(len(self.cuts), self.devices) for _ in range(2))
        self._best = new_state(len(self.cuts), self.devices)
        self._speeds = pricer_for(problem).speeds()
        self._limits = _limits(problem, self.cuts)

    def price(self, strategy: Strategy) -> float:
        """Its latency in seconds."""
        self._load(strategy, self._tried)
        return self._price(self._tried)

    def run(
        self, start: Strategy, evaluations: int, hot: float, cold: float, *, until: float | None = None
    ) -> tuple[Strategy, float, int]:
        """Anneals from one strategy.

        Args:
            start: where to start; its cuts are candidates.
            evaluations: how many, unless time ends it.
            hot, cold: temperatures at the start and the end, as shares of the best latency.
            until: when `time.perf_counter` says so, end; the temperature then follows the clock.

        Returns:
            The best strategy met, its latency in seconds, and the evaluations made.
        """
        self._load(start, self._state)
        copy_state(self._state, self._best)
        latency = best = self._price(self._state)
        begun, done, size = time.perf_counter(), 0, _CHUNK
        progress = 0.0
        while progress < 1.0 and done < evaluations:
            count = min(size, evaluations - done)
            if until is None:
                ahead = (done + count) / evaluations
            else:
                now = time.perf_counter()
                if now >= until:
                    break
                rate = done / (now - begun) if done else 0.0
                step = count / rate / (until - begun) if rate else 0.01
                progress = (now - begun) / (until - begun)
                ahead = min(1.0, progress + step)
            latency, best = anneal(
                self.packed,
                *self._programs,
                self._work,
                self.nodes,
                self._speeds,
                self._limits,
                self._state,
                self._tried,
                self._best,
                latency,
                best,
                count,
                hot * (cold / hot) ** progress,
                hot * (cold / hot) ** ahead,
            )
            done += count
            if until is None:
                progress = ahead
        return self._strategy(self._best), best, done

    def _price(self, state: State) -> float:
        return float(price_state(self.packed, self._programs[0], self._work, state))

    def _load(self, strategy: Strategy, state: State) -> None:
        places = [self.cuts.index(cut) + 1 for cut in strategy.scheme.cuts]
        count = len(places) + 1
        state.volumes[0] = count
        state.places[:count] = [*places, len(self.cuts) + 1]
        state.ends[:count] = [*(self.nodes[place - 1] for place in places), len(self.problem.graph.nodes)]
        for at, split in enumerate(strategy.splits):
            state.bounds[at] = split.bounds
        state.tail[0] = -1 if strategy.tail_device is None else strategy.tail_device

    def _strategy(self, state: State) -> Strategy:
        count = int(state.volumes[0])
        cuts = tuple(self.cuts[int(place) - 1] for place in state.places[: count - 1])
        splits = tuple(SplitDecision(tuple(int(b) for b in row)) for row in state.bounds[:count])
        tail = int(state.tail[0])
        return Strategy(PartitionScheme(cuts), splits, None if tail < 0 else tail)

    def seed(self, seed: int) -> None:
        """Seeds everything random in the runs that follow."""
        seed_random(seed)


def _limits(problem: PlanningProblem, cuts: Sequence[str]) -> Limits:
    """Tables of memory, unless every device has room for anything."""
    graph, memory = problem.graph, pricer_for(problem).memory
    room = memory_limits(problem)
    nothing = np.zeros((0, 0))
    if np.isinf(room).all():
        return Limits(np.zeros(0), nothing, nothing, 0.0, 0.0)
    places = len(cuts) + 2
    weights, maps = np.zeros((places, places)), np.zeros((places, places))
    for start in range(places - 1):
        for end in range(start + 1, places):
            scheme = PartitionScheme(
                tuple(cuts[place - 1] for place in (start, end) if 0 < place <= len(cuts))
            )
            volume = find_volumes(graph, scheme)[1 if start else 0]
            weights[start, end] = memory.weights_bytes(volume.nodes)
            maps[start, end] = memory.work_bytes(volume)
    tail = tuple(sorted(graph.tail))
    return Limits(
        room, weights, maps, memory.weights_bytes(tail), max((_map_bytes(graph, i) for i in tail), default=0)
    )


def _map_bytes(graph: Graph, node: int) -> float:
    names = {*graph.nodes[node].inputs, *graph.nodes[node].outputs} - {""}
    return float(sum(graph.tensors[n].total_bytes for n in names if not graph.tensors[n].constant))
