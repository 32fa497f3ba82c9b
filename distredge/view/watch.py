"""Makes snapshots of a session out of what its requester counts. No clock: the counts say when."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median, quantiles

from distredge.cluster.network import Network
from distredge.plan.execution import ExecutionPlan
from distredge.view.snapshot import (
    DeviceView,
    EventView,
    LinkView,
    PlanView,
    Snapshot,
    end_name,
    plan_view,
    shares_text,
)

WINDOW_S = 3.0
"""What `the latest seconds` are."""
EVENTS_KEPT = 200
Ends = tuple[int, int]
"""Numbers of who sends and who receives, as in a plan."""


@dataclass(frozen=True, slots=True)
class DeviceCount:
    """What a requester knows of one peer.

    Attributes:
        name, address, is_up, reason: as in `DeviceView`.
        up_s: when it came up last; another value means that it was lost meanwhile.
        busy_s: seconds that it has computed in all.
    """

    name: str
    address: str
    is_up: bool
    reason: str
    up_s: float
    busy_s: float


@dataclass(frozen=True, slots=True)
class Counts:
    """What a requester knows at one moment.

    Attributes:
        now: by a steady clock.
        at_s: seconds since 1970.
        devices: all peers.
        epoch, plan: of new frames; None while there is none.
        transit_s: by transfer of the plan, where known.
        answered: (when, latency) in seconds of the latest frames, by the steady clock, the latest first.
        in_flight: frames under way.
    """

    now: float
    at_s: float
    devices: Sequence[DeviceCount]
    epoch: int | None
    plan: ExecutionPlan | None
    transit_s: Mapping[int, float]
    answered: Iterator[tuple[float, float]]
    in_flight: int


def frame_bytes(plan: ExecutionPlan) -> dict[Ends, int]:
    """What a frame sends from one end to another at most, in order of the ends."""
    found: dict[Ends, int] = {}
    for transfer in sorted(plan.transfers, key=lambda each: (each.source, each.target)):
        ends = transfer.source, transfer.target
        found[ends] = found.get(ends, 0) + plan.sent_bytes(transfer)
    return found


class Watch:
    """The latest snapshot of one session. One thread calls `take`, any may read `latest`.

    Args:
        model: the model's name.
        network: what the links can carry; None if nobody knows.

    Attributes:
        latest: None before the first `take`.
    """

    def __init__(self, model: str, network: Network | None = None) -> None:
        self.latest: Snapshot | None = None
        self._model, self._network = model, network
        self._events: deque[EventView] = deque(maxlen=EVENTS_KEPT)
        self._number = 0
        self._devices: Sequence[DeviceCount] = ()
        self._epoch: int | None = None
        self._busy: deque[tuple[float, list[float]]] = deque()
        self._answered_s, self._frames = float("-inf"), 0
        self._plan: PlanView | None = None
        self._frame_bytes: dict[Ends, int] = {}

    def look(self) -> list[Snapshot]:
        """The latest snapshot, if there is one."""
        return [] if self.latest is None else [self.latest]

    def take(self, counts: Counts) -> None:
        """Makes the next snapshot, and notes what has happened since the last one."""
        self._note_devices(counts)
        self._note_plan(counts)
        recent = self._recent(counts)
        latencies_ms = [1e3 * latency_s for _, latency_s in recent]
        rate = len(recent) / WINDOW_S
        self.latest = Snapshot(
            self._model,
            counts.at_s,
            self._frames,
            counts.in_flight,
            rate,
            median(latencies_ms) if latencies_ms else None,
            quantiles(latencies_ms, n=20, method="inclusive")[-1] if len(latencies_ms) > 1 else None,
            self._device_views(counts),
            self._link_views(counts, rate),
            self._plan,
            tuple(self._events),
        )

    def _note(self, counts: Counts, kind: str, text: str) -> None:
        self._events.append(EventView(self._number, counts.at_s, kind, text))
        self._number += 1

    def _note_devices(self, counts: Counts) -> None:
        for before, after in zip(self._devices, counts.devices, strict=False):
            returned = after.is_up and after.up_s != before.up_s
            if before.is_up and (returned or not after.is_up):
                self._note(counts, "lost", f"{after.name} {after.reason}")
            if returned:
                self._note(counts, "back", f"{after.name} is back")
        self._devices = counts.devices

    def _note_plan(self, counts: Counts) -> None:
        if counts.plan is None or counts.epoch is None:
            if self._plan is not None and counts.in_flight:
                self._note(counts, "plan", "no plan for the peers that are left; frames wait")
            self._plan = None
        elif self._plan is None or counts.epoch != self._plan.epoch:
            self._plan = plan_view(counts.plan, counts.epoch)
            self._frame_bytes = frame_bytes(counts.plan)
            volumes = len(self._plan.volumes)
            shares = shares_text(counts.plan.strategy, counts.plan.devices)
            text = f"plan {counts.epoch}, {volumes} volume{'s' * (volumes > 1)}: {shares}"
            self._note(counts, "plan", text)

    def _recent(self, counts: Counts) -> list[tuple[float, float]]:
        """Frames of the latest seconds; counts those that are new."""
        recent: list[tuple[float, float]] = []
        newest = self._answered_s
        for when, latency_s in counts.answered:
            if when > self._answered_s:
                self._frames += 1
                newest = max(newest, when)
            elif when < counts.now - WINDOW_S:
                break
            if when >= counts.now - WINDOW_S:
                recent.append((when, latency_s))
        self._answered_s = newest
        return recent

    def _device_views(self, counts: Counts) -> tuple[DeviceView, ...]:
        self._busy.append((counts.now, [device.busy_s for device in counts.devices]))
        while len(self._busy) > 2 and self._busy[1][0] <= counts.now - WINDOW_S:
            self._busy.popleft()
        since_s, before = self._busy[0]
        span_s = counts.now - since_s
        return tuple(
            DeviceView(
                device.name,
                device.address,
                device.is_up,
                "" if device.is_up else device.reason,
                min(1.0, (device.busy_s - busy_s) / span_s) if span_s > 0 and device.is_up else 0.0,
            )
            for device, busy_s in zip(counts.devices, before, strict=True)
        )

    def _link_views(self, counts: Counts, rate: float) -> tuple[LinkView, ...]:
        plan = counts.plan
        if plan is None:
            return ()
        transit_s: dict[Ends, float] = {}
        for number, seconds in counts.transit_s.items():
            ends = plan.transfers[number].source, plan.transfers[number].target
            transit_s[ends] = max(transit_s.get(ends, 0.0), seconds)
        return tuple(
            LinkView(
                end_name(source, plan.devices),
                end_name(target, plan.devices),
                size,
                8e-6 * size * rate,
                self._limit_mbps(source, target),
                1e3 * transit_s[source, target] if (source, target) in transit_s else None,
            )
            for (source, target), size in self._frame_bytes.items()
        )

    def _limit_mbps(self, source: int, target: int) -> float | None:
        if self._network is None:
            return None
        limit = min(self._network.link(source).uplink_mbps, self._network.link(target).downlink_mbps)
        return limit if isfinite(limit) else None
