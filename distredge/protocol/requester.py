"""The requester's decisions for one plan: scatter each frame's inputs, gather its outputs."""

from __future__ import annotations

from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.protocol.events import (
    DeliverFrame,
    Event,
    FrameDropped,
    FrameSubmitted,
    Instruction,
    PartFinished,
    RejectRows,
    RowsArrived,
    SendRows,
)


class RequesterState:
    """The requester's state machine under one plan. Frames are numbered by whoever submits them."""

    def __init__(self, plan: ExecutionPlan) -> None:
        self._scatter = tuple(t.id for t in plan.transfers if t.source == REQUESTER)
        self._gather = frozenset(t.id for t in plan.transfers if t.target == REQUESTER)
        self._missing: dict[int, set[int]] = {}

    @property
    def frames(self) -> tuple[int, ...]:
        """Frames not yet answered, in the order they were submitted."""
        return tuple(self._missing)

    def handle(self, event: Event) -> list[Instruction]:
        """What to do now that this has happened."""
        match event:
            case FrameSubmitted():
                return self._submitted(event.frame)
            case RowsArrived():
                return self._rows_arrived(event)
            case FrameDropped():
                self._missing.pop(event.frame, None)
                return []
            case PartFinished():
                raise TypeError("parts run on providers")

    def _submitted(self, frame: int) -> list[Instruction]:
        if frame in self._missing:
            raise ValueError(f"frame {frame} was submitted twice")
        sends: list[Instruction] = [SendRows(frame, transfer) for transfer in self._scatter]
        if not self._gather:
            return [*sends, DeliverFrame(frame)]
        self._missing[frame] = set(self._gather)
        return sends

    def _rows_arrived(self, event: RowsArrived) -> list[Instruction]:
        if event.transfer not in self._gather:
            return [RejectRows(event.frame, event.transfer, "not for the requester")]
        missing = self._missing.get(event.frame)
        if missing is None:
            return [RejectRows(event.frame, event.transfer, "frame is not open")]
        if event.transfer not in missing:
            return [RejectRows(event.frame, event.transfer, "duplicate")]
        missing.remove(event.transfer)
        if missing:
            return []
        del self._missing[event.frame]
        return [DeliverFrame(event.frame)]
