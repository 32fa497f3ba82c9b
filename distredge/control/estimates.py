"""Live estimates of each device's speed and each link's rate, from what the plan in use takes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from math import inf, isfinite, log

from distredge.cluster.network import Link
from distredge.cluster.scaled import ScaledTimes
from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.plan.policy import Device, PlanningProblem
from distredge.runtime.tally import Review
from distredge.sim.pricing import Pricer
from distredge.sim.replay import replay
from distredge.sim.tables import task_seconds

GRACE_S = 0.002
"""Added to what a transfer takes and should take: so much is noise of clocks and schedulers."""
LARGE_BYTES = 8192
"""Transfers that say something of a link."""
STEP = 16.0
"""A link's estimate changes by so much at most in one review."""
FRAMES = 4
"""That are replayed to see what transfers should take."""
FORGET_S, FORGET_LATEST_S = 6.0, 60.0
"""A link that nothing crossed for so long may be as it was at first; longer, when that was wrong before."""


class Estimates:
    """What is believed of a cluster, corrected with each review.

    Devices: seconds of parts against those foreseen. Links: the fastest of each transfer against the fastest
    in a replay of the same plan under what is believed. A transfer crosses two links; it tells of a slow one
    only if all others that cross it are slow too. Links without a stated rate are not estimated.

    Args:
        problem: the cluster as it was measured or stated.
    """

    def __init__(self, problem: PlanningProblem) -> None:
        self.base = problem
        self._pricer = Pricer(problem)
        self._factors = [1.0] * len(problem.devices)
        self._links = dict(enumerate(problem.network.links)) | {REQUESTER: problem.network.requester}
        self._silent_s: dict[int, float] = defaultdict(float)
        self._patience_s: dict[int, float] = defaultdict(lambda: FORGET_S)

    @property
    def problem(self) -> PlanningProblem:
        """What to ask a policy now."""
        devices = tuple(
            replace(device, times=ScaledTimes(device.times, factor)) if factor != 1.0 else device
            for device, factor in zip(self.base.devices, self._factors, strict=True)
        )
        links = tuple(self._links[at] for at in range(len(devices)))
        network = replace(self.base.network, links=links, requester=self._links[REQUESTER])
        return replace(self.base, devices=devices, network=network)

    def change_since(self, problem: PlanningProblem) -> float:
        """The largest change of a speed or rate against an earlier `problem`: 2.0 for twice or half."""
        now = self.problem
        changes = [1.0]
        for device, before in zip(now.devices, problem.devices, strict=True):
            changes.append(_factor(device) / _factor(before))
        for at in (*range(len(now.devices)), REQUESTER):
            a, b = now.network.link(at), problem.network.link(at)
            for one, other in ((a.uplink_mbps, b.uplink_mbps), (a.downlink_mbps, b.downlink_mbps)):
                changes.append(one / other if one < inf and other < inf else 1.0)
        return max(max(change, 1 / change) for change in changes)

    def take(self, review: Review, interval_s: float = 1.0) -> None:
        """Corrects what is believed."""
        for each in (review, *review.beside):
            self._take(each, interval_s)

    def _take(self, review: Review, interval_s: float) -> None:
        plan = review.plan
        seconds = task_seconds(self.base.graph, plan, self._pricer.times)
        for device, factor in self._measured_factors(review, seconds).items():
            self._factors[device] = factor
        scaled = [s * self._factors[task.device] for s, task in zip(seconds, plan.tasks, strict=True)]
        self._take_links(review, scaled, interval_s)

    def _measured_factors(self, review: Review, seconds: list[float]) -> dict[int, float]:
        took: dict[int, float] = defaultdict(float)
        foreseen: dict[int, float] = defaultdict(float)
        for task, (count, total) in review.runs.items():
            if isfinite(total) and total > 0:
                device = review.plan.tasks[task].device
                took[device] += total
                foreseen[device] += count * seconds[task]
        return {device: took[device] / foreseen[device] for device in took if foreseen[device] > 0}

    def _take_links(self, review: Review, seconds: list[float], interval_s: float) -> None:
        foreseen = self._foreseen(review.plan, seconds, review.in_flight)
        up: dict[int, list[float]] = defaultdict(list)
        down: dict[int, list[float]] = defaultdict(list)
        for number, took_s in review.transit_s.items():
            transfer = review.plan.transfers[number]
            if review.plan.sent_bytes(transfer) < LARGE_BYTES or not isfinite(took_s):
                continue
            slowness = (max(0.0, took_s) + GRACE_S) / (foreseen.get(number, 0.0) + GRACE_S)
            up[transfer.source].append(slowness)
            down[transfer.target].append(slowness)
        for at, link in self._links.items():
            base = self.base.network.link(at)
            if not (up[at] or down[at]):
                self._links[at] = self._forgotten(at, link, base, interval_s)
                continue
            self._silent_s[at] = 0.0
            self._links[at] = replace(
                link,
                uplink_mbps=_corrected(link.uplink_mbps, base.uplink_mbps, up[at] or down[at]),
                downlink_mbps=_corrected(link.downlink_mbps, base.downlink_mbps, down[at] or up[at]),
            )

    def _forgotten(self, at: int, link: Link, base: Link, interval_s: float) -> Link:
        """Nothing crosses a link: after a while it may be as it was at first, so that it is tried again."""
        self._silent_s[at] += interval_s
        if link == base or self._silent_s[at] < self._patience_s[at]:
            return link
        self._silent_s[at] = 0.0
        self._patience_s[at] = min(FORGET_LATEST_S, 2 * self._patience_s[at])
        return base

    def _foreseen(self, plan: ExecutionPlan, seconds: list[float], in_flight: int) -> dict[int, float]:
        """The fastest of each transfer in a replay."""
        network = self.problem.network
        timeline = replay(plan, seconds, network, frames=FRAMES, in_flight=max(1, min(in_flight, FRAMES)))
        found: dict[int, float] = {}
        for span in timeline.transfers:
            took_s = span.arrived_s - span.queued_s
            found[span.transfer] = min(took_s, found.get(span.transfer, inf))
        return found


def _factor(device: Device) -> float:
    return device.times.factor if isinstance(device.times, ScaledTimes) else 1.0


def _corrected(rate: float, base: float, slowness: list[float]) -> float:
    """A rate by the least slow of what crosses the link; hardly above the rate that is stated."""
    if rate == inf:
        return rate
    least = min(slowness)
    if abs(log(least)) < log(1.1):
        return rate
    return min(1.05 * base, max(rate / min(STEP, max(1 / STEP, least)), base / 1000))
