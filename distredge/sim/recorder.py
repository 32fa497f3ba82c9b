"""Collects what happens in a replay into a Timeline."""

from __future__ import annotations

from distredge.plan.execution import ExecutionPlan
from distredge.sim.timeline import FrameSpan, TaskSpan, Timeline, TransferSpan


class Recorder:
    """Takes events in any order; `build` keeps those that are complete."""

    def __init__(self, plan: ExecutionPlan) -> None:
        self._plan = plan
        self._submitted: dict[int, float] = {}
        self._answered: dict[int, float] = {}
        self._started: dict[tuple[int, int], float] = {}
        self._finished: dict[tuple[int, int], float] = {}
        self._queued: dict[tuple[int, int], float] = {}
        self._sent: dict[tuple[int, int], tuple[float, float, float, int]] = {}

    def submitted(self, frame: int, at_s: float) -> None:
        """A frame was handed in."""
        self._submitted[frame] = at_s

    def answered(self, frame: int, at_s: float) -> None:
        """Its last output row has come."""
        self._answered[frame] = at_s

    def started(self, frame: int, task: int, at_s: float) -> None:
        """A task began to run."""
        self._started[frame, task] = at_s

    def finished(self, frame: int, task: int, at_s: float) -> None:
        """A task has run."""
        self._finished[frame, task] = at_s

    def queued(self, frame: int, transfer: int, at_s: float) -> None:
        """A message was handed to its link."""
        self._queued[frame, transfer] = at_s

    def sent(
        self, frame: int, transfer: int, start_s: float, end_s: float, arrived_s: float, size: int
    ) -> None:
        """A message left between two moments, and arrived."""
        self._sent[frame, transfer] = (start_s, end_s, arrived_s, size)

    def build(self) -> Timeline:
        """The timeline of all that is complete; a task's `ready_s` follows from its inputs."""
        transfers = []
        for (frame, number), (start, end, arrived, size) in self._sent.items():
            wanted = self._plan.transfers[number]
            queued = self._queued.get((frame, number), start)
            span = (frame, number, wanted.source, wanted.target, size, queued, start, end, arrived)
            transfers.append(TransferSpan(*span))
        tasks = []
        for (frame, number), end in self._finished.items():
            start = self._started.get((frame, number), end)
            device = self._plan.tasks[number].device
            tasks.append(TaskSpan(frame, number, device, self._ready(frame, number, start), start, end))
        frames = [FrameSpan(f, self._submitted[f], at) for f, at in self._answered.items()]
        return Timeline(
            self._plan,
            tuple(sorted(frames, key=lambda span: span.frame)),
            tuple(sorted(tasks, key=lambda span: (span.end_s, span.task))),
            tuple(sorted(transfers, key=lambda span: (span.end_s, span.transfer))),
        )

    def _ready(self, frame: int, task: int, start: float) -> float:
        times = [self._submitted.get(frame, start)]
        for item in self._plan.tasks[task].inputs:
            for piece in item.pieces:
                if piece.transfer >= 0 and (sent := self._sent.get((frame, piece.transfer))):
                    times.append(sent[2])
                elif piece.task >= 0:
                    times.append(self._finished.get((frame, piece.task), start))
        return min(start, max(times))
