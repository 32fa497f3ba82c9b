"""The annealing runs of one planning problem: strategies in, better strategies out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import copy
from math import inf
from threading import Lock

import numpy as np

from distredge.errors import PolicyError
from distredge.graph.model import Graph
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.sim.kernel import new_work
from distredge.sim.program import build_program, new_program
from policies.annealing import Limits, anneal, fits, price_state, seed_random
from policies.breeding import cross_random, new_population, offer, take
from policies.parts import memory_limits, pricer_for
from policies.state import State, copy_state, new_state

POOL = 10
"""Strategies of a population."""
_CHUNK = 128
"""Evaluations between two looks at the clock."""


class Annealer:
    """One problem, laid out for the compiled search.

    Args:
        problem: what is asked.
        cuts: candidate cuts, in topological order.
        lanes: of the strategies that it changes; see `Strategy`.

    Raises:
        PolicyError: the compiled evaluator cannot read the graph.
    """

    def __init__(self, problem: PlanningProblem, cuts: Sequence[str], lanes: Sequence[int] = ()) -> None:
        graph, pricer = problem.graph, pricer_for(problem).on_lanes(lanes)
        if pricer.packed is None:
            raise PolicyError(f"{graph.name}: a row rule is of a form that the search cannot price fast")
        self.problem = problem
        self.cuts = tuple(cuts)
        self.lanes = tuple(lanes)
        self._packed = pricer.packed
        self._place = {cut: at + 1 for at, cut in enumerate(self.cuts)}
        self._nodes = np.array([graph.producer[cut] for cut in self.cuts], dtype=np.int64)
        self._pool = new_population(POOL, len(self.cuts), self._parts)
        self._lock = Lock()
        self._speeds = pricer.speeds()[self._packed.part_device]
        self._limits = _limits(problem, self.cuts)
        self._make_room()

    @property
    def _parts(self) -> int:
        return len(self._packed.part_device)

    def _make_room(self) -> None:
        size = len(self.cuts) + 1
        self.evaluations = 0
        self._programs = [new_program(self._packed, size) for _ in range(2)]
        self._works = [new_work(self._packed, size) for _ in range(2)]
        self._state, self._tried, self._best = (new_state(len(self.cuts), self._parts) for _ in range(3))

    def twin(self) -> Annealer:
        """One for another thread, with the same population."""
        other = copy(self)
        other._make_room()
        return other

    def seed(self, seed: int) -> None:
        """Seeds everything random in this thread's runs that follow."""
        seed_random(seed % 2**32)

    def price(self, strategy: Strategy) -> float:
        """Its latency in seconds; infinity where it does not fit into memory."""
        self._load(strategy, self._tried)
        return self._price(self._tried)

    @property
    def best(self) -> Strategy:
        """The best of the population."""
        take(self._pool, 0, self._nodes, len(self.problem.graph.nodes), self._state)
        return self._strategy(self._state)

    @property
    def population(self) -> list[Strategy]:
        """The best met, best first."""
        found = []
        for at in range(int(self._pool.filled[0])):
            take(self._pool, at, self._nodes, len(self.problem.graph.nodes), self._state)
            found.append(self._strategy(self._state))
        return found

    @property
    def best_s(self) -> float:
        """Its latency."""
        return float(self._pool.latency_s[0]) if self._pool.filled[0] else inf

    def anneal_child(self, decay: float, evaluations: float, hot: float, cold: float, until: float) -> None:
        """Crosses two of the best strategies, `decay` or so of them, and anneals the child; see `anneal`."""
        with self._lock:
            cross_random(self._packed, self._programs[0], self._nodes, self._pool, self._state, decay)
        self._run(evaluations, hot, cold, until)

    def anneal(
        self, start: Strategy, evaluations: float, hot: float, cold: float, until: float = inf
    ) -> None:
        """Anneals a strategy, and offers the best one met to the population.

        Args:
            start: its cuts are candidates.
            evaluations: how many, unless time ends it.
            hot, cold: temperatures at the start and the end, as shares of the best latency. In between
                they follow what is sooner used up, evaluations or time.
            until: when `time.perf_counter` says so, end.
        """
        self._load(start, self._state)
        self._run(evaluations, hot, cold, until)

    def _run(self, evaluations: float, hot: float, cold: float, until: float) -> None:
        copy_state(self._state, self._best)
        latency = best = self._price(self._state)
        if best == inf:
            return
        begun, done, progress = time.perf_counter(), 0, 0.0
        while done < evaluations and progress < 1.0:
            count = int(min(_CHUNK, evaluations - done))
            ahead = (done + count) / evaluations
            if until < inf:
                used = max(0.0, time.perf_counter() - begun) / max(1e-9, until - begun)
                ahead = max(ahead, used * (1 + count / max(done, 4 * count)))
            ahead = min(1.0, ahead)
            latency, best = anneal(
                self._packed,
                self._programs[0],
                self._programs[1],
                self._works[0],
                self._works[1],
                self._nodes,
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
            progress = ahead
        self.evaluations += done
        with self._lock:
            offer(self._pool, self._best, best, self._parts)

    def without(self, strategy: Strategy, cut: int, keep: int) -> Strategy:
        """A strategy with two neighbouring volumes joined; the split of one of them, by number, stays."""
        cuts = [name for at, name in enumerate(strategy.scheme.cuts) if at != cut]
        splits = list(strategy.splits)
        splits[cut : cut + 2] = [splits[keep]]
        heights = self.heights(cuts)
        scaled = tuple(split.scaled(rows) for split, rows in zip(splits, heights, strict=True))
        return Strategy(PartitionScheme(tuple(cuts)), scaled, strategy.tail_device, self.lanes)

    def heights(self, cuts: Sequence[str]) -> list[int]:
        """Reference rows of the volumes between these cuts."""
        nodes = self.problem.graph.nodes
        ends = np.array([*(self._nodes[self._place[cut] - 1] for cut in cuts), len(nodes)], dtype=np.int64)
        build_program(self._packed, ends, len(ends), self._programs[0])
        return [int(rows) for rows in self._programs[0].volume["rows"][: len(ends)]]

    def _price(self, state: State) -> float:
        if len(self._limits.device_bytes) and not fits(self._limits, self._packed.part_device, state):
            return inf
        self.evaluations += 1
        found = float(price_state(self._packed, self._programs[0], self._works[0], state))
        return inf if np.isnan(found) else found

    def _load(self, strategy: Strategy, state: State) -> None:
        places = [self._place[cut] for cut in strategy.scheme.cuts]
        count = len(places) + 1
        state.volumes[0] = count
        state.places[:count] = [*places, len(self.cuts) + 1]
        state.ends[:count] = [*(self._nodes[place - 1] for place in places), len(self.problem.graph.nodes)]
        for at, split in enumerate(strategy.splits):
            state.bounds[at] = split.bounds
        state.tail[0] = -1 if strategy.tail_device is None else strategy.tail_device

    def _strategy(self, state: State) -> Strategy:
        count = int(state.volumes[0])
        cuts = tuple(self.cuts[int(place) - 1] for place in state.places[: count - 1])
        splits = tuple(SplitDecision(tuple(int(b) for b in row)) for row in state.bounds[:count])
        tail = int(state.tail[0])
        return Strategy(PartitionScheme(cuts), splits, None if tail < 0 else tail, self.lanes)


def _limits(problem: PlanningProblem, cuts: Sequence[str]) -> Limits:
    """Tables of memory, unless every device has room for anything."""
    graph, memory = problem.graph, pricer_for(problem).memory
    room = memory_limits(problem)
    if np.isinf(room).all():
        return Limits(np.zeros(0), *(np.zeros((0, 0)) for _ in range(3)), 0.0, 0.0)
    places = len(cuts) + 2
    weights, shared, maps = (np.zeros((places, places)) for _ in range(3))
    for start in range(places - 1):
        for end in range(start + 1, places):
            between = tuple(cuts[place - 1] for place in (start, end) if 0 < place <= len(cuts))
            volume = find_volumes(graph, PartitionScheme(between))[1 if start else 0]
            weights[start, end] = memory.weights_bytes(volume.nodes)
            shared[start, end] = memory.shared_bytes(volume.nodes)
            maps[start, end] = memory.work_bytes(volume)
    tail = tuple(sorted(graph.tail))
    tail_maps = max((_map_bytes(graph, i) for i in tail), default=0.0)
    return Limits(room, weights, shared, maps, memory.weights_bytes(tail), tail_maps)


def _map_bytes(graph: Graph, node: int) -> float:
    names = {*graph.nodes[node].inputs, *graph.nodes[node].outputs} - {""}
    return float(sum(graph.tensors[n].total_bytes for n in names if not graph.tensors[n].constant))
