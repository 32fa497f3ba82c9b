"""Which plan each frame runs under, as devices are lost and come back: the requester's view of all epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.protocol.dealer import Dealer
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
    """One plan, from its announcement on. Those beside each other have one `group`: the first one's."""

    number: int
    group: int
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

    Plans beside each other are epochs of their own, used at the same time: new frames are dealt out to them.
    When some of them are lost, their frames are dealt to the others; these are as good as another plan if
    every device that is left and had something to do still has.

    Args:
        members: devices that live.
        standbys: whether plans for losses are made ahead of time.
        clock: seconds, to know how fast plans beside each other are.

    Attributes:
        members: devices that live now.
        current: the epoch of new frames, or the first of those that they are dealt to; None while there is
            none, and frames wait.
        ways: those that frames are dealt to.
    """

    def __init__(
        self, members: Iterable[int], *, standbys: bool = True, clock: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.members: Members = frozenset(members)
        self.current: int | None = None
        self.ways: tuple[int, ...] = ()
        self._dealer = Dealer(clock)
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
            number = self.current if len(self.ways) == 1 else self._dealer.deal(self.ways)
            self._epoch_of[frame] = number
            epoch = self._epochs[number]
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
                self._dealer.answered(epoch.number)
                found += self._end_if_left(epoch)
        return found

    def _frame_dropped(self, frame: int) -> list[SessionInstruction]:
        number = self._epoch_of.pop(frame, None)
        if number is None:
            return []
        epoch = self._epochs[number]
        epoch.state.handle(FrameDropped(frame))
        self._dealer.dropped(number)
        return [Under(number, ForgetFrame(frame)), *self._end_if_left(epoch)]

    # ------------------------------------------------------------------ epochs

    def _plan_found(self, event: PlanFound) -> list[SessionInstruction]:
        if event.asked:
            self._asked.discard(event.members)
        ways = event.plan.ways
        each = [involved_devices(way) for way in ways]
        involved = frozenset[int]().union(*each)
        if not involved <= self.members or (event.asked and event.members not in self._needed()):
            return self._look_ahead()  # it came too late
        numbers = (event.epoch, *event.beside)
        for number, way, devices in zip(numbers, ways, each, strict=True):
            self._epochs[number] = _Epoch(
                number, event.epoch, event.members, devices, set(devices), RequesterState(way), event.asked
            )
        if event.asked:
            self._targets[event.members] = event.epoch
        announced: list[SessionInstruction] = [AnnouncePlan(number) for number in numbers]
        return [*announced, *([] if involved else self._choose())]

    def _device_ready(self, number: int, device: int) -> list[SessionInstruction]:
        epoch = self._epochs.get(number)
        if epoch is None or device not in epoch.unready:
            return []
        epoch.unready.remove(device)
        return [*self._choose(), *self._look_ahead()] if self._is_whole(epoch.group) else []

    def _use(self, number: int) -> list[SessionInstruction]:
        for epoch in self._group(number):
            epoch.leaving = False
        self._has_begun = True
        self._targets[self.members] = number
        return [*self._choose(), *self._look_ahead()]

    def _leave(self, number: int) -> list[SessionInstruction]:
        epoch = self._epochs.get(number)
        if epoch is None:
            return []
        group = self._group(epoch.group)
        for each in group:
            each.leaving = True
        return [end for each in group for end in self._end_if_left(each)]

    def _end_if_left(self, epoch: _Epoch) -> list[SessionInstruction]:
        if not epoch.leaving or epoch.number in self.ways or epoch.state.frames:
            return []
        return self._end(epoch)

    def _end(self, epoch: _Epoch) -> list[SessionInstruction]:
        """Ends an epoch; its frames wait from now on."""
        del self._epochs[epoch.number]
        self._dealer.forget(epoch.number)
        for members in [members for members, at in self._targets.items() if at == epoch.number]:
            del self._targets[members]
        self.ways = tuple(number for number in self.ways if number != epoch.number)
        if self.current == epoch.number:
            self.current = next(iter(self.ways), None)
        for frame in epoch.state.frames:
            self._epoch_of[frame] = None
        return [RetireEpoch(epoch.number)]

    def _epoch_failed(self, number: int) -> list[SessionInstruction]:
        epoch = self._epochs.get(number)
        if epoch is None:
            return []
        self._hopeless.add(epoch.members)
        ended = [end for each in self._group(epoch.group) for end in self._end(each)]
        return [*ended, *self._choose(), *self._look_ahead()]

    # ------------------------------------------------------------------ devices

    def _device_lost(self, device: int) -> list[SessionInstruction]:
        if device not in self.members:
            return []
        goes_on = self._covers(self.members - {device})
        self.members -= {device}
        found: list[SessionInstruction] = []
        for epoch in list(self._epochs.values()):
            if device in epoch.involved:
                found += self._end(epoch)
                self._break(epoch.group)
        if self.current is not None and goes_on:
            self._targets.setdefault(self.members, self.current)
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
        if wanted is not None and self._is_whole(self._epochs[wanted].group):
            self.current = wanted
        elif self.current is None:
            ready = [epoch for epoch in self._epochs.values() if epoch.is_ready]
            best = max(ready, key=lambda epoch: (not epoch.leaving, len(epoch.involved)), default=None)
            self.current = None if best is None else best.number
        if self.current is not None:
            group = self._group(self._epochs[self.current].group)
            self.ways = tuple(epoch.number for epoch in group if epoch.is_ready)
        return self._place(sorted(self.waiting))

    def _group(self, group: int) -> list[_Epoch]:
        """The epochs beside each other that are left of a group."""
        return [epoch for epoch in self._epochs.values() if epoch.group == group]

    def _is_whole(self, group: int) -> bool:
        return all(epoch.is_ready for epoch in self._group(group))

    def _break(self, group: int) -> None:
        """What is left of a group is only used until there is something better."""
        for epoch in self._group(group):
            epoch.asked = True
            for members in [members for members, at in self._targets.items() if at == epoch.number]:
                del self._targets[members]

    def _covers(self, members: Members) -> bool:
        """Whether the ways in use without those that others are involved in leave no one of these members
        idle who was not."""
        used = [self._epochs[number].involved for number in self.ways]
        left = frozenset[int]().union(*(each for each in used if each <= members))
        return bool(used) and left == frozenset[int]().union(*used) & members

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
            is_target = epoch.members in needed and self._targets.get(epoch.members) == epoch.group
            if epoch.asked and not is_target and epoch.number not in self.ways:
                epoch.leaving = True
            found += self._end_if_left(epoch)
        busy = bool(self._asked) or any(not epoch.is_ready for epoch in self._epochs.values())
        for members in needed:
            if members in self._targets or members in self._asked or members in self._hopeless:
                continue
            if len(self.ways) > 1 and members != self.members and self._covers(members):
                continue
            if members == self.members or not busy:  # one at a time, but nothing delays what is needed now
                self._asked.add(members)
                return [*found, FindPlan(members)]
        return found
