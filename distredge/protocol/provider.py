"""A provider's decisions for one plan: what to run and what to send as rows arrive and parts finish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush

from distredge.plan.execution import ExecutionPlan, Task
from distredge.protocol.events import (
    Event,
    ForgetFrame,
    FrameDropped,
    FrameSubmitted,
    Instruction,
    PartFinished,
    RejectRows,
    RowsArrived,
    RunPart,
    SendRows,
)


@dataclass(slots=True)
class _Frame:
    """What one frame still waits for on this device, and how many of the tasks were started."""

    missing: dict[int, int]
    arrived: set[int]
    started: int
    unfinished: int


class ProviderState:
    """One device's state machine under one plan.

    It knows tasks and the transfer ids that each waits for, nothing else. The compute unit runs one
    part at a time. The tasks of one frame run in the plan's order, which makes a frame's time
    predictable; of several frames whose next task is ready, the oldest goes first.

    Args:
        plan: the compiled plan.
        device: this device's number in it.
        frame_limit: frames kept at once; rows of more are rejected, so that memory stays bounded.
    """

    def __init__(self, plan: ExecutionPlan, device: int, *, frame_limit: int = 1024) -> None:
        self.device = device
        self.frame_limit = frame_limit
        tasks = [task for task in plan.tasks if task.device == device]
        self._order = tuple(task.id for task in tasks)
        self._waits = {task.id: _sources(task) for task in tasks}
        self._waiting_for_transfer = _invert(tasks, lambda piece: piece[0])
        self._waiting_for_task = _invert(tasks, lambda piece: piece[1])
        self._sends: dict[int, list[int]] = {task.id: [] for task in tasks}
        for transfer in plan.transfers:
            if transfer.source == device:
                self._sends[transfer.task].append(transfer.id)
        self._expected = {t.id for t in plan.transfers if t.target == device}
        self._frames: dict[int, _Frame] = {}
        self._ready: list[int] = []
        self._running: tuple[int, int] | None = None
        self._done = _FrameSet(frame_limit)

    @property
    def frames(self) -> tuple[int, ...]:
        """Frames of which something is kept."""
        return tuple(self._frames)

    def handle(self, event: Event) -> list[Instruction]:
        """What to do now that this has happened."""
        match event:
            case RowsArrived():
                return self._rows_arrived(event)
            case PartFinished():
                return self._part_finished(event)
            case FrameDropped():
                return self._frame_dropped(event)
            case FrameSubmitted():
                raise TypeError("frames are submitted to a requester")

    def _rows_arrived(self, event: RowsArrived) -> list[Instruction]:
        if event.transfer not in self._expected:
            return [RejectRows(event.frame, event.transfer, "not for this device")]
        frame = self._frames.get(event.frame)
        if frame is None:
            if event.frame in self._done:
                return [RejectRows(event.frame, event.transfer, "frame is over")]
            if len(self._frames) >= self.frame_limit:
                return [RejectRows(event.frame, event.transfer, "too many frames")]
            frame = self._open(event.frame)
        if event.transfer in frame.arrived:
            return [RejectRows(event.frame, event.transfer, "duplicate")]
        frame.arrived.add(event.transfer)
        self._less_missing(event.frame, frame, self._waiting_for_transfer.get(event.transfer, ()))
        return self._next()

    def _open(self, number: int) -> _Frame:
        missing = {task: len(sources) for task, sources in self._waits.items()}
        frame = self._frames[number] = _Frame(missing, set(), 0, len(missing))
        self._queue(number, frame)
        return frame

    def _queue(self, number: int, frame: _Frame) -> None:
        """Makes the frame a candidate if its next task, in the plan's order, waits for nothing."""
        if frame.started < len(self._order) and frame.missing[self._order[frame.started]] == 0:
            heappush(self._ready, number)

    def _less_missing(self, number: int, frame: _Frame, tasks: tuple[int, ...]) -> None:
        for task in tasks:
            frame.missing[task] -= 1
            if frame.missing[task] == 0 and self._order[frame.started] == task:
                heappush(self._ready, number)

    def _part_finished(self, event: PartFinished) -> list[Instruction]:
        if self._running != (event.frame, event.task):
            raise ValueError(f"{event} but running is {self._running} on device {self.device}")
        self._running = None
        frame = self._frames.get(event.frame)
        if frame is None:
            return self._next()
        instructions: list[Instruction] = [SendRows(event.frame, t) for t in self._sends[event.task]]
        self._less_missing(event.frame, frame, self._waiting_for_task.get(event.task, ()))
        frame.unfinished -= 1
        if frame.unfinished == 0 and len(frame.arrived) == len(self._expected):
            instructions.append(self._close(event.frame))
        return instructions + self._next()

    def _frame_dropped(self, event: FrameDropped) -> list[Instruction]:
        if event.frame not in self._frames:
            self._done.add(event.frame)  # the word may have overtaken rows that are still under way
            return []
        self._ready = sorted(frame for frame in self._ready if frame != event.frame)
        return [self._close(event.frame)]

    def _close(self, number: int) -> Instruction:
        del self._frames[number]
        self._done.add(number)
        return ForgetFrame(number)

    def _next(self) -> list[Instruction]:
        if self._running is not None or not self._ready:
            return []
        number = heappop(self._ready)
        frame = self._frames[number]
        task = self._order[frame.started]
        frame.started += 1
        self._running = (number, task)
        self._queue(number, frame)
        return [RunPart(number, task)]


class _FrameSet:
    """Frames that are over, in bounded memory: all below a mark, and some above it.

    Frames that run under another plan leave gaps here which nothing closes, so that the mark has to be
    lifted over them: what is older than the last `limit` frames counts as over.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._below = 0
        self._above: set[int] = set()

    def __len__(self) -> int:
        return len(self._above)

    def __contains__(self, frame: int) -> bool:
        return frame < self._below or frame in self._above

    def add(self, frame: int) -> None:
        if frame < self._below:
            return
        self._above.add(frame)
        if len(self._above) > 2 * self._limit:
            self._below = sorted(self._above)[-self._limit]
            self._above = {number for number in self._above if number >= self._below}
        while self._below in self._above:
            self._above.remove(self._below)
            self._below += 1


def _sources(task: Task) -> set[tuple[int, int]]:
    return {(piece.transfer, piece.task) for item in task.inputs for piece in item.pieces}


def _invert(tasks: list[Task], key: Callable[[tuple[int, int]], int]) -> dict[int, tuple[int, ...]]:
    found: dict[int, list[int]] = {}
    for task in tasks:
        for source in _sources(task):
            if key(source) >= 0:
                found.setdefault(key(source), []).append(task.id)
    return {source: tuple(ids) for source, ids in found.items()}
