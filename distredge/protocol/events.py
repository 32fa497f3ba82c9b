"""What a peer's state machine is told, and what it asks for. No I/O, no clock, no payloads."""

from __future__ import annotations

from dataclasses import dataclass

from distredge.plan.execution import ExecutionPlan

Members = frozenset[int]
"""Devices that live, by their numbers."""


@dataclass(frozen=True, slots=True)
class RowsArrived:
    """The rows of a transfer are here."""

    frame: int
    transfer: int


@dataclass(frozen=True, slots=True)
class PartFinished:
    """The compute unit has finished a task; its outputs are kept under its id."""

    frame: int
    task: int


@dataclass(frozen=True, slots=True)
class FrameSubmitted:
    """The application hands a frame to the requester; its inputs are kept under its number."""

    frame: int


@dataclass(frozen=True, slots=True)
class FrameDropped:
    """The frame is given up (its requester left, or it will be sent again under another plan)."""

    frame: int


Event = RowsArrived | PartFinished | FrameSubmitted | FrameDropped
"""Of one plan."""


@dataclass(frozen=True, slots=True)
class RunPart:
    """Run a task: all its inputs are here. At most one is asked for at a time."""

    frame: int
    task: int


@dataclass(frozen=True, slots=True)
class SendRows:
    """Send the rows of a transfer: they are here."""

    frame: int
    transfer: int


@dataclass(frozen=True, slots=True)
class DeliverFrame:
    """All outputs of a frame are at the requester."""

    frame: int


@dataclass(frozen=True, slots=True)
class ForgetFrame:
    """Nothing of this frame is needed any more: free its buffers."""

    frame: int


@dataclass(frozen=True, slots=True)
class RejectRows:
    """A message that no plan asks for, or that came twice; `reason` is counted and logged."""

    frame: int
    transfer: int
    reason: str


Instruction = RunPart | SendRows | DeliverFrame | ForgetFrame | RejectRows
"""Of one plan."""


# ---------------------------------------------------------------------- over all plans of a session


@dataclass(frozen=True, slots=True)
class Under:
    """An event or an instruction of one epoch's plan."""

    epoch: int
    what: Event | Instruction


@dataclass(frozen=True, slots=True)
class PlanFound:
    """A plan for these members. `asked`: as `FindPlan` wanted; else nothing runs under it before UseEpoch.
    `beside`: the epochs of the plans beside it."""

    epoch: int
    members: Members
    plan: ExecutionPlan
    asked: bool = True
    beside: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class NoPlanFound:
    """There is none for these members, at least until a device comes back."""

    members: Members


@dataclass(frozen=True, slots=True)
class UseEpoch:
    """New frames run under this epoch as soon as it is ready."""

    epoch: int


@dataclass(frozen=True, slots=True)
class LeaveEpoch:
    """The epoch is not needed any more once its frames are answered."""

    epoch: int


@dataclass(frozen=True, slots=True)
class EpochFailed:
    """A device cannot prepare the epoch."""

    epoch: int


@dataclass(frozen=True, slots=True)
class DeviceReady:
    """A device has prepared an epoch."""

    epoch: int
    device: int


@dataclass(frozen=True, slots=True)
class DeviceLost:
    """A device died, hangs or is cut off. What it knew is gone."""

    device: int


@dataclass(frozen=True, slots=True)
class DeviceBack:
    """A lost device can be used again; it knows nothing."""

    device: int


@dataclass(frozen=True, slots=True)
class LookAhead:
    """Whether plans for losses shall be made ahead of time, from now on."""

    on: bool


SessionEvent = (
    Under
    | FrameSubmitted
    | FrameDropped
    | PlanFound
    | NoPlanFound
    | UseEpoch
    | LeaveEpoch
    | EpochFailed
    | DeviceReady
    | DeviceLost
    | DeviceBack
    | LookAhead
)


@dataclass(frozen=True, slots=True)
class FindPlan:
    """Decide for these members; answered with PlanFound or NoPlanFound."""

    members: Members


@dataclass(frozen=True, slots=True)
class AnnouncePlan:
    """Bring an epoch's plan to the devices that it involves; each answers with DeviceReady."""

    epoch: int


@dataclass(frozen=True, slots=True)
class RetireEpoch:
    """An epoch has ended: free its buffers, and tell the devices that it involves and that live."""

    epoch: int


SessionInstruction = Under | FindPlan | AnnouncePlan | RetireEpoch
