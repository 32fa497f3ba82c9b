"""Measured events of a run in the simulator's form, so that both are drawn and compared alike."""

from __future__ import annotations

from collections.abc import Sequence

from distredge.plan.execution import ExecutionPlan
from distredge.runtime.trace import Activity
from distredge.sim.timeline import FrameSpan, TaskSpan, Timeline, TransferSpan


def measured_timeline(plan: ExecutionPlan, activities: Sequence[Activity], frames: int = 1) -> Timeline:
    """The timeline of the last frames of a trace.

    Args:
        plan: the plan that all of the trace's frames ran under.
        activities: by the requester's clock, as `InferenceSession.trace` gives them.
        frames: how many; time 0 is when the first of them was submitted.
    """
    numbers = sorted({a.frame for a in activities if a.what == "frame"})[-frames:]
    chosen = [a for a in activities if a.frame in numbers]
    zero = min((a.start_s for a in chosen if a.what == "frame"), default=0.0)
    spans, tasks, transfers = [], [], []
    for a in sorted(chosen, key=lambda a: a.end_s):
        start, end = a.start_s - zero, a.end_s - zero
        if a.what == "frame":
            spans.append(FrameSpan(a.frame, start, end))
        elif a.what == "run":
            tasks.append(TaskSpan(a.frame, a.id, plan.tasks[a.id].device, start, start, end))
        else:
            sent = plan.transfers[a.id]
            transfers.append(
                TransferSpan(a.frame, a.id, sent.source, sent.target, a.bytes, start, start, end, end)
            )
    spans.sort(key=lambda span: span.frame)
    return Timeline(plan, tuple(spans), tuple(tasks), tuple(transfers))
