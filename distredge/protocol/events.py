"""What a peer's state machine is told, and what it asks for. No I/O, no clock, no payloads."""

from __future__ import annotations

from dataclasses import dataclass


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
