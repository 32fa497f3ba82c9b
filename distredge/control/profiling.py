"""Measures running peers: each device's time by rows, and each link, from frames that really run on them.

No protocol of its own: the frames run under plans that give each device different numbers of rows, and the
peers' own traces say how long each part and each transfer took. So what is measured is what will be used:
the same sessions, the same sockets, and all devices at work at once.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from distredge.cluster.network import Link, Network
from distredge.cluster.profile import DeviceProfile, SegmentSamples
from distredge.cluster.segment import node_rows, segment_rows
from distredge.graph.model import Graph
from distredge.plan.compile import compile_plan
from distredge.plan.crossing import even_scheme
from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.plan.policy import Device, PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.runtime.engine import Array
from distredge.runtime.session import InferenceSession
from distredge.runtime.trace import Activity
from distredge.sim.tables import plan_work

LEADING_SHARES = (1.0, 0.5, 0.2)
"""Of the rows, for each device in turn; the others share the rest equally."""
FEWEST_FRAMES, MOST_FRAMES = 2, 12
VOLUMES = 8
SMALL_BYTES, LARGE_BYTES = 4_096, 65_536


@dataclass(frozen=True)
class Measured:
    """What was measured of a cluster.

    Attributes:
        profiles: per device, in the session's order.
        network: its links; infinite where transfers were too small or too fast to tell.
        strategies: how many plans ran.
    """

    profiles: tuple[DeviceProfile, ...]
    network: Network
    strategies: int

    def problem(self, graph: Graph, *, seed: int = 0, budget_s: float = 2.0) -> PlanningProblem:
        """What to ask a policy."""
        devices = tuple(Device(profile.device, profile) for profile in self.profiles)
        return PlanningProblem(graph, devices, self.network, seed, budget_s)


def profile_session(
    session: InferenceSession,
    feed: Mapping[str, Array],
    *,
    budget_s: float = 20.0,
    network: Network | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Measured:
    """Measures every peer of a session on the session's model.

    Afterwards the session runs under its present plan again.

    Args:
        session: with a plan (an input shape is known).
        feed: a frame.
        budget_s: about how long to measure in all, sessions' building included.
        network: the links, where they are known; otherwise they are estimated from the transfers.
        progress: called with plans done and plans in all.
    """
    before, graph = session.plan, session.model.graph
    names = before.devices
    samples: list[dict[int, dict[int, list[float]]]] = [defaultdict(lambda: defaultdict(list)) for _ in names]
    moved: list[tuple[int, int, int, float]] = []
    scheme = even_scheme(graph, VOLUMES)
    strategies = list(_strategies(graph, scheme, len(names)))
    start = time.monotonic()
    session.run(None, feed)
    for done, strategy in enumerate(strategies):
        plan = compile_plan(graph, strategy, names, model=before.model)
        session.use(plan)
        session.run(None, feed)
        session.trace()
        left = budget_s * (done + 1) / len(strategies) - (time.monotonic() - start)
        activities = _run_for(session, feed, left)
        _add_tasks(graph, plan, activities, samples)
        moved += _transfers(plan, activities)
        progress(done + 1, len(strategies))
    session.use(before)
    segments = _segments(graph, scheme)
    profiles = tuple(
        _profile(graph, name, segments, found) for name, found in zip(names, samples, strict=True)
    )
    return Measured(profiles, network or estimate_network(moved, len(names)), len(strategies))


def _strategies(graph: Graph, scheme: PartitionScheme, devices: int) -> Iterator[Strategy]:
    rows = [volume.rows for volume in find_volumes(graph, scheme)]
    for share in LEADING_SHARES:
        for leader in range(devices):
            if devices == 1 and share < 1:
                continue
            rest = (1 - share) / max(1, devices - 1)
            shares = [share if d == leader else rest for d in range(devices)]
            yield Strategy(scheme, tuple(SplitDecision.from_shares(r, shares) for r in rows), leader)


def _segments(graph: Graph, scheme: PartitionScheme) -> list[tuple[int, ...]]:
    """The volumes, and last the tail if there is one."""
    found = [volume.nodes for volume in find_volumes(graph, scheme)]
    return [*found, tuple(sorted(graph.tail))] if graph.tail else found


def _run_for(session: InferenceSession, feed: Mapping[str, Array], seconds: float) -> list[Activity]:
    start, frames = time.monotonic(), 0
    while frames < FEWEST_FRAMES or (frames < MOST_FRAMES and time.monotonic() - start < seconds):
        session.run(None, feed)
        frames += 1
    return session.trace()


def _add_tasks(
    graph: Graph,
    plan: ExecutionPlan,
    activities: list[Activity],
    samples: list[dict[int, dict[int, list[float]]]],
) -> None:
    """Adds what each device needed for its share of each volume, the volume's stages together."""
    shares = _computed_shares(graph, plan)
    spent: dict[tuple[int, int, int], float] = defaultdict(float)
    for activity in activities:
        if activity.what == "run":
            task = plan.tasks[activity.id]
            spent[activity.frame, task.device, task.volume] += activity.end_s - activity.start_s
    segments = _segments(graph, plan.strategy.scheme)
    for (_, device, volume), seconds in spent.items():
        rows = segment_rows(graph, segments[volume])
        computed = min(rows, max(1, round(shares[device, volume] * rows)))
        samples[device][volume][computed].append(seconds)


def _computed_shares(graph: Graph, plan: ExecutionPlan) -> dict[tuple[int, int], float]:
    """Per device and volume, the work that it computes, halo included, over the whole volume's."""
    done: dict[tuple[int, int], float] = defaultdict(float)
    total: dict[int, float] = defaultdict(float)
    for volume, nodes in enumerate(_segments(graph, plan.strategy.scheme)):
        total[volume] = sum(graph.nodes[i].macs for i in nodes) or len(nodes)
    for task, work in zip(plan.tasks, plan_work(graph, plan), strict=True):
        light = not any(graph.nodes[i].macs for i, _ in work)
        for i, rows in work:
            weight = graph.nodes[i].macs or (1 if light else 0)
            done[task.device, task.volume] += weight * rows / max(1, node_rows(graph, i))
    return {key: value / total[key[1]] for key, value in done.items()}


def _profile(
    graph: Graph, name: str, segments: list[tuple[int, ...]], found: dict[int, dict[int, list[float]]]
) -> DeviceProfile:
    measured = {}
    for at, nodes in enumerate(segments):
        if not nodes:
            continue
        by_rows = {rows: tuple(seconds) for rows, seconds in found[at].items()}
        top = segment_rows(graph, nodes)
        if top not in by_rows:
            # Shares are rounded, so the device that ran everything may stand a row below.
            most = max(by_rows, default=0)
            by_rows[top] = tuple(s * top / most for s in by_rows[most]) if most else (0.0,)
        measured[nodes] = SegmentSamples(nodes, by_rows)
    return DeviceProfile(
        device=name,
        model=graph.name,
        graph=graph.digest,
        machine="",
        threads=0,
        execution_provider="",
        segments=measured,
    )


def _transfers(plan: ExecutionPlan, activities: list[Activity]) -> list[tuple[int, int, int, float]]:
    found = []
    for activity in activities:
        if activity.what == "transfer":
            sent = plan.transfers[activity.id]
            found.append((sent.source, sent.target, activity.bytes, activity.end_s - activity.start_s))
    return found


def estimate_network(moved: list[tuple[int, int, int, float]], devices: int) -> Network:
    """Links out of transfers (source, target, bytes, seconds).

    The fixed cost of a message is the median of small ones, half at either end. A rate is the best tenth of
    large ones, since slower ones shared their link or waited for a busy peer; infinite without any.
    """
    small = [seconds for _, _, size, seconds in moved if size <= SMALL_BYTES]
    fixed = float(np.median(small)) if small else 0.0

    def rate(peer: int, end: int) -> float:
        rates = [
            move[2] * 8e-6 / max(1e-6, move[3] - fixed)
            for move in moved
            if move[end] == peer and move[2] >= LARGE_BYTES
        ]
        return float(np.quantile(rates, 0.9)) if rates else float("inf")

    def link(peer: int) -> Link:
        return Link(rate(peer, 0), rate(peer, 1), 0.0, fixed / 2)

    return Network(tuple(link(d) for d in range(devices)), link(REQUESTER))
