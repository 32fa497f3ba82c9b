"""What a session does at one moment, as every view shows it. Plain data: no clock, no input and output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distredge.errors import ProtocolError
from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.plan.serde import from_plain
from distredge.plan.strategy import Strategy

FORMAT = "distredge-view-1"


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One peer.

    Attributes:
        name, address: the peer's.
        is_up: it can be used.
        reason: why it cannot, in words that continue its name; empty while it can.
        load: share of the latest seconds in which it computed, 0 to 1.
    """

    name: str
    address: str
    is_up: bool
    reason: str
    load: float


@dataclass(frozen=True, slots=True)
class LinkView:
    """What goes from one end to another under the present plan.

    Attributes:
        source, target: names; "requester" for the session's own process.
        frame_bytes: that a frame sends there.
        mbps: carried by the frames of the latest seconds, in 10^6 bits a second.
        limit_mbps: what the hosts file says that it can carry; None where it says nothing.
        transit_ms: of the slowest message of a frame, as far as clocks agree; None if it is not known yet.
    """

    source: str
    target: str
    frame_bytes: int
    mbps: float
    limit_mbps: float | None
    transit_ms: float | None


@dataclass(frozen=True, slots=True)
class VolumeView:
    """One layer-volume: device i has rows `[bounds[i], bounds[i + 1])` of its reference tensor."""

    bounds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlanView:
    """The plan of new frames.

    Attributes:
        epoch: its number in the session.
        volumes: from the image on.
        tail: who runs what cannot be split; empty if there is nothing of that kind.
    """

    epoch: int
    volumes: tuple[VolumeView, ...]
    tail: str


@dataclass(frozen=True, slots=True)
class EventView:
    """Something that happened.

    Attributes:
        number: counts from 0 in a session.
        at_s: seconds since 1970.
        kind: `lost`, `back` or `plan`.
        text: one line for people.
    """

    number: int
    at_s: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One session.

    Attributes:
        model: its name.
        at_s: when, in seconds since 1970.
        frames: answered so far.
        in_flight: under way.
        images_per_second: over the latest seconds.
        latency_ms, latency_p95_ms: median and 95th percentile of these; None if no frame was answered.
        devices: all peers, in the order of the plan's.
        links: those that the plan uses.
        plan: None while nothing can run.
        events: the latest, oldest first.
    """

    model: str
    at_s: float
    frames: int
    in_flight: int
    images_per_second: float
    latency_ms: float | None
    latency_p95_ms: float | None
    devices: tuple[DeviceView, ...]
    links: tuple[LinkView, ...]
    plan: PlanView | None
    events: tuple[EventView, ...]


def plan_view(plan: ExecutionPlan, epoch: int) -> PlanView:
    """The picture of a plan."""
    volumes = plan.strategy.scheme.volumes
    tail = [plan.devices[task.device] for task in plan.tasks if task.volume == volumes]
    return PlanView(
        epoch,
        tuple(VolumeView(split.bounds) for split in plan.strategy.merged.splits),
        tail[0] if tail else "",
    )


def shares_text(strategy: Strategy, names: Sequence[str]) -> str:
    """Who computes how much, in one line: the mean share of all volumes' rows."""
    splits = strategy.merged.splits
    shares = [
        sum(split.part(device).size / max(1, split.rows) for split in splits) / len(splits)
        for device in range(len(names))
    ]
    return ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True) if share > 0)


def end_name(device: int, names: Sequence[str]) -> str:
    """Of a transfer's end."""
    return "requester" if device == REQUESTER else names[device]


def to_json(snapshots: Sequence[Snapshot]) -> str:
    """What a server of views answers."""
    return json.dumps({"format": FORMAT, "sessions": [asdict(snapshot) for snapshot in snapshots]})


def from_json(text: str | bytes) -> list[Snapshot]:
    """Reads `to_json`.

    Raises:
        ProtocolError: it is something else, or of another version.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("what came is no JSON") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ProtocolError(f"what came is no {FORMAT}; install the same version of DistrEdge on both ends")
    return [from_plain(Snapshot, _values(item)) for item in from_plain(list, document.get("sessions"))]


def _values(item: Any) -> Any:
    """Objects as the lists of their values, which is what `from_plain` reads."""
    if isinstance(item, dict):
        return [_values(value) for value in item.values()]
    return [_values(value) for value in item] if isinstance(item, list) else item
