"""Which plan each frame runs under, as devices are lost and come back: the requester's view of all epochs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.protocol.events import (
    AnnouncePlan,
    DeliverFrame,
    DeviceBack,
    DeviceLost,
    DeviceReady,
    EpochFailed,
    FindPlan,
    ForgetFrame,
    FrameDropped,
    FrameSubmitted,
    Instruction,
    LeaveEpoch,
    LookAhead,
    Members,
    NoPlanFound,
    PlanFound,
    RejectRows,
    RetireEpoch,
    RowsArrived,
    SessionEvent,
    SessionInstruction,
    Under,
    UseEpoch,
)
from distredge.protocol.requester import RequesterState


def involved_devices(plan: ExecutionPlan) -> Members:
    """Devices that compute, send or receive anything under a plan."""
    ends = {device for transfer in plan.transfers for device in (transfer.source, transfer.target)}
    return frozenset({task.device for task in plan.tasks} | ends - {REQUESTER})


@dataclass(slots=True)
class _Epoch:
    """One plan, from its announcement on."""

    number: int
    members: Members
    involved: Members
    unready: set[int]
    state: RequesterState
    asked: bool
    leaving: bool = False

    @property
    def is_ready(self) -> bool:
        return not self.unready


class Succession:
    """The plans of one model and input shape, one after another.

    Each frame is in one epoch at a time, and answered once. An epoch ends when a device that it involves is
    lost; its frames go on under another one. For each member that may be lost next, a plan is asked for
    ahead of time.

    Args:
        members: devices that live.
        standbys: whether plans for losses are made ahead of time.

    Attributes:
        members: devices that live now.
        current: the epoch of new frames; None while there is none, and frames wait.
    """

    def __init__(self, members: Iterable[int], *, standbys: bool = True) -> None:
        self.members: Members = frozenset(members)
        self.current: int | None = None
        self._standbys = standbys
        self._has_begun = False
        self._epochs: dict[int, _Epoch] = {}
        self._targets: dict[Members, int] = {}
        self._asked: set[Members] = set()
        self._hopeless: set[Members] = set()
        self._epoch_of: dict[int, int | None] = {}

    @property
    def frames(self) -> tuple[int, ...]:
        """Frames that are not answered."""
        return tuple(self._epoch_of)

    @property
    def waiting(self) -> tuple[int, ...]:
        """Those of them that are in no epoch, for want of one."""
        return tuple(frame for frame, epoch in self._epoch_of.items() if epoch is None)

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epochs that have not ended."""
        return tuple(self._epochs)

    def epoch_of(self, frame: int) -> int | None:
        """Where a frame is; None if it waits, or is not open."""
        return self._epoch_of.get(frame)

    def is_ready(self, epoch: int) -> bool:
        """Whether all devices have prepared an epoch (that has not ended)."""
        found = self._epochs.get(epoch)
        return found is not None and found.is_ready

    def unready(self, epoch: int) -> frozenset[int]:
        """The devices that still prepare an epoch; none, if it has ended."""
        found = self._epochs.get(epoch)
        return frozenset() if found is None else frozenset(found.unready)

    @property
    def is_settled(self) -> bool:
        """Whether the current epoch is the one meant for these members, and every standby is ready."""
        wanted = self._targets.get(self.members)
        return (
            wanted is not None
            and wanted == self.current
            and not self._asked
            and all(epoch.is_ready for epoch in self._epochs.values())
        )

    @property
    def is_stuck(self) -> bool:
        """Whether nothing can run before a device comes back."""
        return (
            self.current is None
            and not self._asked
            and all(epoch.is_ready for epoch in self._epochs.values())
        )

    def handle(self, event: SessionEvent) -> list[SessionInstruction]:
        """What to do now that this has happened."""
        match event:
            case Under(number, RowsArrived() as rows):
                return self._rows_arrived(number, rows)
            case FrameSubmitted(frame):
                if frame in self._epoch_of:
                    raise ValueError(f"frame {frame} was submitted twice")
                self._epoch_of[frame] = None
                return self._place([frame])
            case FrameDropped(frame):
                return self._frame_dropped(frame)
            case PlanFound():
                return self._plan_found(event)
            case NoPlanFound(members):
                self._asked.discard(members)
                self._hopeless.add(members)
                return self._look_ahead()
            case UseEpoch(number):
                return self._use(number)
            case LeaveEpoch(number):
                return self._leave(number)
            case EpochFailed(number):
                return self._epoch_failed(number)
            case DeviceReady(number, device):
                return self._device_ready(number, device)
            case DeviceLost(device):
                return self._device_lost(device)
            case DeviceBack(device):
                return self._device_back(device)
            case LookAhead(on):
                self._standbys = on
                return self._look_ahead()
            case Under(_, what):
                raise TypeError(f"{what} is no event of a requester")

    # ------------------------------------------------------------------ frames

    def _place(self, frames: Iterable[int]) -> list[SessionInstruction]:
        """Submits frames under the current epoch, if there is one."""
        found: list[SessionInstruction] = []
        for frame in frames:
            if self.current is None:
                break
            self._epoch_of[frame] = self.current
            epoch = self._epochs[self.current]
            found += self._wrapped(epoch, epoch.state.handle(FrameSubmitted(frame)))
        return found

    def _rows_arrived(self, number: int, rows: RowsArrived) -> list[SessionInstruction]:
        epoch = self._epochs.get(number)
        if epoch is None:
            return [Under(number, RejectRows(rows.frame, rows.transfer, "epoch is over"))]
        return self._wrapped(epoch, epoch.state.handle(rows))

    def _wrapped(self, epoch: _Epoch, instructions: list[Instruction]) -> list[SessionInstruction]:
        found: list[SessionInstruction] = []
        for instruction in instructions:
            found.append(Under(epoch.number, instruction))
            if type(instruction) is DeliverFrame:
                del self._epoch_of[instruction.frame]
                found += self._end_if_left(epoch)
        return found

    def _frame_dropped(self, frame: int) -> list[SessionInstruction]:
        number = self._epoch_of.pop(frame, None)
        if number is None:
            return []
        epoch = self._epochs[number]
        epoch.state.handle(FrameDropped(frame))
        return [Under(number, ForgetFrame(frame)), *self._end_if_left(epoch)]

    # ------------------------------------------------------------------ epochs

    def _plan_found(self, event: PlanFound) -> list[SessionInstruction]:
        if event.asked:
            self._asked.discard(event.members)
        involved = involved_devices(event.plan)
        if not involved <= self.members or (event.asked and event.members not in self._needed()):
            return self._look_ahead()  # it came too late
        state = RequesterState(event.plan)
        epoch = _Epoch(event.epoch, event.members, involved, set(involved), state, event.asked)
        self._epochs[event.epoch] = epoch
        if event.asked:
            self._targets[event.members] = event.epoch
        return [AnnouncePlan(event.epoch), *(self._choose() if epoch.is_ready else [])]

    def _device_ready(self, number: int, device: int) -> list[SessionInstruction]:
        epoch = self._epochs.get(number)
        if epoch is None or device not in epoch.unready:
            return []
        epoch.unready.remove(device)
        return [] if epoch.unready else [*self._choose(), *self._look_ahead()]

    def _use(self, number: int) -> list[SessionInstruction]:
        epoch = self._epochs[number]
        epoch.leaving = False
        self._has_begun = True
        self._targets[self.members] = number
        return [*self._choose(), *self._look_ahead()]

    def _leave(self, number: int) -> list[SessionInstruction]:
        epoch = self._epochs.get(number)
        if epoch is None:
            return []
        epoch.leaving = True
        return self._end_if_left(epoch)

    def _end_if_left(self, epoch: _Epoch) -> list[SessionInstruction]:
        if not epoch.leaving or epoch.number == self.current or epoch.state.frames:
            return []
        return self._end(epoch)

    def _end(self, epoch: _Epoch) -> list[SessionInstruction]:
        """Ends an epoch; its frames wait from now on."""
        del self._epochs[epoch.number]
        for members in [members for members, at in self._targets.items() if at == epoch.number]:
            del self._targets[members]
        if self.current == epoch.number:
            self.current = None
        for frame in epoch.state.frames:
            self._epoch_of[frame] = None
        return [RetireEpoch(epoch.number)]

    def _epoch_failed(self, number: int) -> list[SessionInstruction]:
        epoch = self._epochs.get(number)
        if epoch is None:
            return []
        self._hopeless.add(epoch.members)
        return [*self._end(epoch), *self._choose(), *self._look_ahead()]

    # ------------------------------------------------------------------ devices

    def _device_lost(self, device: int) -> list[SessionInstruction]:
        if device not in self.members:
            return []
        self.members -= {device}
        found: list[SessionInstruction] = []
        for epoch in list(self._epochs.values()):
            if device in epoch.involved:
                found += self._end(epoch)
        if self.current is not None:
            self._targets.setdefault(self.members, self.current)  # it did not involve the lost one
        return [*found, *self._choose(), *self._look_ahead()]

    def _device_back(self, device: int) -> list[SessionInstruction]:
        if device in self.members:
            return []
        self.members |= {device}
        self._hopeless.clear()
        return [*self._choose(), *self._look_ahead()]

    def _choose(self) -> list[SessionInstruction]:
        """Makes the epoch meant for these members current if it is ready, or any that is ready if there is
        none; what waits goes there."""
        wanted = self._targets.get(self.members)
        if wanted is not None and self._epochs[wanted].is_ready:
            self.current = wanted
        elif self.current is None:
            ready = [epoch for epoch in self._epochs.values() if epoch.is_ready]
            best = max(ready, key=lambda epoch: (not epoch.leaving, len(epoch.involved)), default=None)
            self.current = None if best is None else best.number
        return self._place(sorted(self.waiting))

    def _needed(self) -> list[Members]:
        """Members that there should be a plan for, in order: these, and these without any one."""
        if not (self.members and self._has_begun):
            return []
        needed = [self.members]
        if self._standbys and len(self.members) > 1:
            needed += [self.members - {device} for device in sorted(self.members)]
        return needed

    def _look_ahead(self) -> list[SessionInstruction]:
        """Asks for the next plan that there should be, and leaves those that there need not be."""
        found: list[SessionInstruction] = []
        needed = self._needed()
        for epoch in list(self._epochs.values()):
            is_target = epoch.members in needed and self._targets.get(epoch.members) == epoch.number
            if epoch.asked and not is_target and epoch.number != self.current:
                epoch.leaving = True
            found += self._end_if_left(epoch)
        busy = bool(self._asked) or any(not epoch.is_ready for epoch in self._epochs.values())
        for members in needed:
            if members in self._targets or members in self._asked or members in self._hopeless:
                continue
            if members == self.members or not busy:  # one at a time, but nothing delays what is needed now
                self._asked.add(members)
                return [*found, FindPlan(members)]
        return found
