"""Measures running peers: each device's time by rows, and each link, from frames that really run on them.

No protocol of its own: the frames run under plans that give each device different numbers of rows, and the
peers' own traces say how long each part and each transfer took. So what is measured is what will be used:
the same sessions, the same sockets, and all devices at work at once.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

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
from distredge.plan.wire import RAW
from distredge.runtime.engine import Array
from distredge.runtime.session import InferenceSession
from distredge.runtime.trace import Activity
from distredge.sim.tables import plan_work

TILT = 1.6
"""How much more, or less, than its due a device gets to do, so that its table has more than one entry."""
FEWEST_FRAMES, MOST_FRAMES = 2, 12
VOLUMES = 8
LEAST_NET = 0.1
"""Of a time, what is left at least when the boundary cost is taken from it."""
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

    Equal parts tell how fast each device is. Then each gets its due, more and less than that, so that slow
    devices hold nobody up; more and less only while there is time. What a boundary between volumes costs is
    told by the fastest one alone, with many volumes and with one. Afterwards the session runs under its
    present plan again.

    Args:
        session: with a plan (an input shape is known).
        feed: a frame.
        budget_s: about how long to measure in all, sessions' building included.
        network: the links, where they are known; otherwise they are estimated from the transfers.
        progress: called with plans done and plans in all.
    """
    with session.undisturbed():
        return _profile_session(session, feed, budget_s, network, progress)


def _profile_session(
    session: InferenceSession,
    feed: Mapping[str, Array],
    budget_s: float,
    network: Network | None,
    progress: Callable[[int, int], None],
) -> Measured:
    before, graph = session.plan, session.model.graph
    devices = len(before.devices)
    of = 2 if devices == 1 else 6
    watch = _Watch(session, feed, budget_s, of, progress)
    scheme = even_scheme(graph, VOLUMES)
    found = [watch.run(_in_shares(graph, scheme, [1.0] * devices))]
    if devices > 1:
        found.append(watch.run(_in_shares(graph, scheme, found[0].speeds)))
        due = _best(found)
        for odd in (0, 1):
            tilted = [s * TILT ** (1 if d % 2 == odd else -1) for d, s in enumerate(due)]
            if not watch.is_over:
                found.append(watch.run(_in_shares(graph, scheme, tilted)))
    speeds = _best(found)
    fastest = speeds.index(max(speeds))
    alone = [float(d == fastest) for d in range(devices)]
    if devices > 1:
        found.append(watch.run(_in_shares(graph, scheme, alone)))
    whole = watch.run(_in_shares(graph, PartitionScheme(()), alone))
    session.use(before)
    s_per_byte = _boundary_s_per_byte(found[-1], whole, fastest)
    profiles = tuple(
        _profile(graph, scheme, d, found, s_per_byte, [speed / speeds[d] for speed in speeds])
        for d in range(devices)
    )
    transfers = [move for run in found for move in _transfers(run.plan, run.activities)]
    progress(of, of)
    return Measured(profiles, network or estimate_network(transfers, devices), len(found) + 1)


@dataclass(frozen=True)
class _Run:
    """What the peers did under one plan."""

    graph: Graph
    plan: ExecutionPlan
    activities: list[Activity]

    @cached_property
    def seconds(self) -> dict[tuple[int, int], list[float]]:
        """Per device and volume, what each frame took, the volume's stages together."""
        spent: dict[tuple[int, int], dict[int, float]] = defaultdict(lambda: defaultdict(float))
        for activity in self.activities:
            if activity.what == "run":
                task = self.plan.tasks[activity.id]
                spent[task.device, task.volume][activity.frame] += activity.end_s - activity.start_s
        return {key: list(frames.values()) for key, frames in spent.items()}

    def moved_bytes(self, device: int, volume: int | None = None) -> int:
        """Bytes into and out of a device's tasks, of one volume or of all."""
        mine = (t for t in self.plan.tasks if t.device == device and volume in (None, t.volume))
        return sum(self.plan.moved_bytes(task) for task in mine)

    @cached_property
    def work(self) -> dict[tuple[int, int], float]:
        """Per device and volume, what it computes, halo included: multiply-accumulates, or nodes without."""
        done: dict[tuple[int, int], float] = defaultdict(float)
        volumes = _segments(self.graph, self.plan.strategy.scheme)
        light = [not any(self.graph.nodes[i].macs for i in nodes) for nodes in volumes]
        for task, work in zip(self.plan.tasks, plan_work(self.graph, self.plan), strict=True):
            for i, rows in work:
                weight = self.graph.nodes[i].macs or float(light[task.volume])
                done[task.device, task.volume] += weight * rows / max(1, node_rows(self.graph, i))
        return done

    def busy_s(self, device: int) -> float:
        """What a device needs for a frame, in the median."""
        return sum(float(np.median(s)) for (d, _), s in self.seconds.items() if d == device)

    @property
    def speeds(self) -> list[float]:
        """Work a second of each device; 1 for one that had none."""
        devices = range(len(self.plan.devices))
        done = [sum(w for (d, _), w in self.work.items() if d == at) for at in devices]
        return [w / self.busy_s(at) if w else 1.0 for at, w in enumerate(done)]


class _Watch:
    """Runs a session's frames under one plan after the other and takes the traces."""

    def __init__(
        self,
        session: InferenceSession,
        feed: Mapping[str, Array],
        budget_s: float,
        of: int,
        progress: Callable[[int, int], None],
    ) -> None:
        self._session, self._feed, self._progress = session, feed, progress
        self._end = time.monotonic() + budget_s
        self._done, self._of = 0, of

    @property
    def is_over(self) -> bool:
        """Whether the time is used up."""
        return time.monotonic() >= self._end

    def run(self, strategy: Strategy) -> _Run:
        """One plan, for its part of the time that is left; the first frame, which warms up, left out."""
        session, graph = self._session, self._session.model.graph
        now = time.monotonic()
        end = now + (self._end - now) / (self._of - self._done)
        plan = compile_plan(graph, strategy, session.plan.devices, model=session.plan.model, wire=RAW)
        session.use(plan)
        session.run(None, self._feed)
        session.trace()
        frames = 0
        while frames < FEWEST_FRAMES or (frames < MOST_FRAMES and time.monotonic() < end):
            session.run(None, self._feed)
            frames += 1
        self._done += 1
        self._progress(self._done, self._of)
        return _Run(graph, plan, session.trace())


def _best(runs: Sequence[_Run]) -> list[float]:
    """Each device's speed where it was fastest: what disturbs a machine makes it slower only."""
    return [max(speeds) for speeds in zip(*(run.speeds for run in runs), strict=True)]


def _in_shares(graph: Graph, scheme: PartitionScheme, shares: Sequence[float]) -> Strategy:
    rows = [volume.rows for volume in find_volumes(graph, scheme)]
    splits = tuple(SplitDecision.from_shares(height, list(shares)) for height in rows)
    return Strategy(scheme, splits, shares.index(max(shares)))


def _boundary_s_per_byte(many: _Run, one: _Run, device: int) -> float:
    """What more bytes between one device's tasks cost it; mostly a change of layout at either end."""
    extra_s = many.busy_s(device) - one.busy_s(device)
    extra_bytes = many.moved_bytes(device) - one.moved_bytes(device)
    return max(0.0, extra_s) / max(1, extra_bytes)


def _segments(graph: Graph, scheme: PartitionScheme) -> list[tuple[int, ...]]:
    """The volumes, and last the tail if there is one."""
    found = [volume.nodes for volume in find_volumes(graph, scheme)]
    return [*found, tuple(sorted(graph.tail))] if graph.tail else found


def _profile(
    graph: Graph,
    scheme: PartitionScheme,
    device: int,
    runs: list[_Run],
    s_per_byte: float,
    faster: list[float],
) -> DeviceProfile:
    """`s_per_byte` is the fastest device's; `faster` is how many times faster each one is than this."""
    own_s_per_byte = s_per_byte * max(faster)
    measured = {}
    for volume, nodes in enumerate(_segments(graph, scheme)):
        by_rows = _samples(graph, nodes, volume, device, runs, own_s_per_byte)
        top = segment_rows(graph, nodes)
        if not by_rows:
            # The tail runs on one device only, the fastest at least: there it was measured.
            tail = _samples(graph, nodes, volume, faster.index(max(faster)), runs, s_per_byte)
            by_rows = {rows: tuple(s * max(faster) for s in seconds) for rows, seconds in tail.items()}
        if top not in by_rows:
            most = max(by_rows)
            by_rows[top] = tuple(s * top / most for s in by_rows[most])
        measured[nodes] = SegmentSamples(nodes, by_rows)
    return DeviceProfile(
        device=runs[0].plan.devices[device],
        model=graph.name,
        graph=graph.digest,
        machine="",
        threads=0,
        execution_provider="",
        segments=measured,
        boundary_s_per_byte=own_s_per_byte,
    )


def _samples(
    graph: Graph, nodes: tuple[int, ...], volume: int, device: int, runs: list[_Run], s_per_byte: float
) -> dict[int, tuple[float, ...]]:
    """Rows -> seconds of one volume on one device, boundary cost left out."""
    by_rows: dict[int, tuple[float, ...]] = {}
    for run in runs:
        if seconds := run.seconds.get((device, volume)):
            rows = _rows(graph, nodes, run.work[device, volume])
            cost = s_per_byte * run.moved_bytes(device, volume)
            by_rows[rows] = by_rows.get(rows, ()) + tuple(max(LEAST_NET * s, s - cost) for s in seconds)
    return by_rows


def _rows(graph: Graph, nodes: tuple[int, ...], work: float) -> int:
    """The rows of a volume that stand for so much of its work."""
    rows = segment_rows(graph, nodes)
    total = sum(graph.nodes[i].macs for i in nodes) or len(nodes)
    return min(rows, max(1, round(work / total * rows)))


def _transfers(plan: ExecutionPlan, activities: list[Activity]) -> list[tuple[int, int, int, float]]:
    found = []
    for activity in activities:
        if activity.what == "transfer":
            sent = plan.transfers[activity.id]
            found.append((sent.source, sent.target, activity.bytes, activity.end_s - activity.start_s))
    return found


def estimate_network(moved: list[tuple[int, int, int, float]], devices: int) -> Network:
    """Links out of transfers (source, target, bytes, seconds).

    The fixed cost of a message is what small ones take on average, a part of it at either end: a peer with a
    share of a core often waits for its turn before it sends or receives. A rate is the best tenth of large
    ones, since slower ones shared their link or waited for a busy peer; infinite without any.
    """
    fixed = _fixed_costs([move for move in moved if move[2] <= SMALL_BYTES], devices)

    def rate(peer: int, end: int) -> float:
        rates = [
            size * 8e-6 / max(1e-6, seconds - fixed[source] - fixed[target])
            for source, target, size, seconds in moved
            if (source, target)[end] == peer and size >= LARGE_BYTES
        ]
        return float(np.quantile(rates, 0.9)) if rates else float("inf")

    def link(peer: int) -> Link:
        return Link(rate(peer, 0), rate(peer, 1), 0.0, float(fixed[peer]))

    return Network(tuple(link(d) for d in range(devices)), link(REQUESTER))


def _fixed_costs(small: list[tuple[int, int, int, float]], devices: int) -> Array:
    """Seconds at each peer's end of a message, the requester's last; non-negative least squares."""
    from scipy.optimize import nnls

    if not small:
        return np.zeros(devices + 1)
    ends = np.zeros((len(small), devices + 1))
    for row, (source, target, _, _) in zip(ends, small, strict=True):
        row[[source, target]] = 1.0  # the requester's number is -1: the last
    seen = ends.any(axis=0)
    # Who talks to one other peer only could be given all of the cost or none: a faint pull makes them alike.
    pull = 1e-3 * np.eye(devices + 1)
    solved = nnls(np.vstack([ends, pull]), np.array([move[3] for move in small] + [0.0] * len(pull)))[0]
    costs: Array = np.where(seen, solved, solved[seen].mean())
    return costs
