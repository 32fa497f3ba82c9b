"""Measured events of all processes on one clock: what a timeline is drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.plan.serde import from_plain
from distredge.protocol.messages import Buffer, unpack


class TraceEvent(NamedTuple):
    """Something that took time, as the wire carries it.

    `what` is `run`, `send` or `receive`; `id` a task's or a transfer's number in the plan.
    """

    what: str
    frame: int
    id: int
    start_s: float
    end_s: float
    bytes: int


def read_events(payload: Buffer) -> list[TraceEvent]:
    """The events in the payload of a Trace message.

    Raises:
        ProtocolError: there are none.
    """
    return [from_plain(TraceEvent, event) for event in from_plain(list, unpack(payload))]


class FrameTimes(NamedTuple):
    """When a frame was submitted, under which plan, and when its outputs were complete."""

    frame: int
    epoch: int
    submitted_s: float
    delivered_s: float

    @property
    def latency_s(self) -> float:
        """From submission to delivery."""
        return self.delivered_s - self.submitted_s


@dataclass(frozen=True)
class PeerEvents:
    """What one process did, by its own clock.

    Attributes:
        name: the peer's; "requester" for this process.
        device: its number in the plan.
        offset_s: of its clock to the requester's.
        events: in the order in which they ended.
    """

    name: str
    device: int
    offset_s: float
    events: Sequence[TraceEvent]


@dataclass(frozen=True, slots=True)
class Activity:
    """One bar of a timeline, by the requester's clock.

    Attributes:
        what: `run` (a part), `transfer` (from handing rows to the socket until they are received) or
            `frame` (from submission to delivery).
        peer: who computes, or who sends.
        to: for a transfer, who receives.
        frame: the frame's number.
        id: the task's or transfer's number in the plan; 0 for a frame.
        volume: of the task, or of the task that made what is transferred; -1 for inputs and frames.
        start_s, end_s: seconds; the first event of a trace is near 0.
        bytes: of a transfer.
    """

    what: str
    peer: str
    to: str
    frame: int
    id: int
    volume: int
    start_s: float
    end_s: float
    bytes: int


def merge(
    collected: Sequence[PeerEvents], frames: Sequence[FrameTimes], plans_by_epoch: Mapping[int, ExecutionPlan]
) -> list[Activity]:
    """All activities in order of their beginning.

    Args:
        collected: of every process.
        frames: when each was submitted and delivered; events of other frames are left out.
        plans_by_epoch: those that are known; events of frames under other plans are left out, as is what a
            peer says that the plan knows nothing of.
    """
    plans = {times.frame: plans_by_epoch[times.epoch] for times in frames if times.epoch in plans_by_epoch}
    names = {source.device: source.name for source in collected}
    sent: dict[tuple[int, int], TraceEvent] = {}
    found: list[Activity] = []
    for source in collected:
        for event in source.events:
            if event.what == "send":
                start = event.start_s - source.offset_s
                sent[event.frame, event.id] = event._replace(
                    start_s=start, end_s=event.end_s - source.offset_s
                )
    for source in collected:
        for event in source.events:
            plan = plans.get(event.frame)
            if plan is None or not 0 <= event.id < len(plan.tasks if event.what == "run" else plan.transfers):
                continue
            start, end = event.start_s - source.offset_s, event.end_s - source.offset_s
            if event.what == "run":
                volume = plan.tasks[event.id].volume
                found.append(Activity("run", source.name, "", event.frame, event.id, volume, start, end, 0))
            elif event.what == "receive" and (sending := sent.get((event.frame, event.id))) is not None:
                transfer = plan.transfers[event.id]
                volume = plan.tasks[transfer.task].volume if transfer.task >= 0 else -1
                began = min(sending.start_s, end)  # clocks agree to a few microseconds only
                found.append(
                    Activity(
                        "transfer",
                        names.get(transfer.source) or plan.devices[transfer.source],
                        source.name,
                        event.frame,
                        event.id,
                        volume,
                        began,
                        end,
                        event.bytes,
                    )
                )
    requester = names.get(REQUESTER, "requester")
    for times in frames:
        if times.frame in plans:
            found.append(
                Activity("frame", requester, "", times.frame, 0, -1, times.submitted_s, times.delivered_s, 0)
            )
    first = min((activity.start_s for activity in found), default=0.0)
    shifted = [
        Activity(a.what, a.peer, a.to, a.frame, a.id, a.volume, a.start_s - first, a.end_s - first, a.bytes)
        for a in found
    ]
    return sorted(shifted, key=lambda activity: activity.start_s)
