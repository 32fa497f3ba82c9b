"""Seeded runs of the real state machines with everything going wrong: worlds to draw from, and runs by seed.

The worlds are small networks over two to four devices, with random strategies for every set of devices that
may be left, among them plans beside each other. `python -m benchmarks.faults` runs many seeds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from itertools import combinations

from distredge.graph.importer import load_model
from distredge.graph.model import Graph
from distredge.graph.zoo_models.builder import Builder
from distredge.plan.compile import compile_plan
from distredge.plan.draw import random_strategy
from distredge.plan.execution import ExecutionPlan
from distredge.plan.strategy import Strategy
from distredge.protocol.events import Members
from distredge.sim.fault_world import Parts, World
from distredge.sim.faults import FaultRun, Violation

SHAPE = (1, 2, 24, 4)


def _chain() -> bytes:
    b = Builder("chain", {"input": SHAPE}, 0)
    x = b.relu(b.conv("input", 2))
    x = b.max_pool(b.relu(b.conv(x, 2)))
    return bytes(b.finish([b.conv(x, 2, name="output")]).SerializeToString())


def _branches() -> bytes:
    b = Builder("branches", {"input": SHAPE}, 0)
    x = b.relu(b.conv("input", 2))
    y = b.relu(b.conv(x, 2))
    return bytes(b.finish([b.conv(b.add(x, y), 2, name="output")]).SerializeToString())


def _reduced() -> bytes:
    """A block of squeeze and excitation, and a classifier: partial results, and a tail on one device."""
    b = Builder("reduced", {"input": SHAPE}, 0)
    x = b.relu(b.conv("input", 2))
    gate = b.sigmoid(b.conv(b.global_average_pool(x), 2, 1, pad=0))
    x = b.relu(b.conv(b.mul(x, gate), 2))
    return bytes(b.finish([b.gemm(b.flatten(x), 3, name="output")]).SerializeToString())


@cache
def worlds() -> tuple[World, ...]:
    """All that runs are drawn from; the same in every process."""
    found = []
    makers: tuple[Callable[[], bytes], ...] = (_chain, _branches, _reduced)
    for number, (make, devices) in enumerate((m, d) for m in makers for d in (2, 3, 3, 4)):
        graph = load_model(make()).graph
        found.append(_world(graph, devices, random.Random(number), _split))
    for number, (make, devices) in enumerate(zip(makers, (2, 3, 4), strict=True)):
        found.append(_world(load_model(make()).graph, devices, random.Random(number), _dealt))
    return tuple(found)


def _split(graph: Graph, members: tuple[int, ...], devices: int, rng: random.Random) -> Strategy:
    """All members compute every frame."""
    return random_strategy(graph, len(members), rng.randrange(2), rng).embedded(members, devices)


def _dealt(graph: Graph, members: tuple[int, ...], devices: int, rng: random.Random) -> Strategy:
    """Two groups that take whole frames, if there are two members."""
    some = sorted(rng.sample(members, rng.randint(1, max(1, len(members) - 1))))
    groups = (tuple(some), tuple(device for device in members if device not in some))
    return Strategy.dealt([_split(graph, group, devices, rng) for group in groups if group])


def _world(
    graph: Graph,
    devices: int,
    rng: random.Random,
    draw: Callable[[Graph, tuple[int, ...], int, random.Random], Strategy],
) -> World:
    names = tuple(f"peer{device}" for device in range(devices))

    def plan(members: tuple[int, ...]) -> ExecutionPlan:
        return compile_plan(graph, draw(graph, members, devices, rng), names)

    plans: dict[Members, ExecutionPlan] = {}
    for size in range(1, devices + 1):
        for members in combinations(range(devices), size):
            plans[frozenset(members)] = plan(members)
    return World(plans, plan(tuple(range(devices))))


def run_seed(seed: int, parts: Parts | None = None) -> FaultRun:
    """One run.

    Raises:
        Violation: an invariant does not hold.
    """
    all_worlds = worlds()
    return FaultRun(all_worlds[seed % len(all_worlds)], seed, parts=parts).run()


def run_seeds(first: int, count: int) -> Violation | None:
    """Runs one seed after another; the first that fails."""
    for seed in range(first, first + count):
        try:
            run_seed(seed)
        except Violation as violation:
            return violation
    return None
