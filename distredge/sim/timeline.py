"""What happened when: one form for simulated and for measured frames."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any

from distredge.cluster.network import Network
from distredge.plan.execution import REQUESTER, ExecutionPlan


@dataclass(frozen=True, slots=True)
class FrameSpan:
    """One frame, from its submission until its last output row is at the requester."""

    frame: int
    submitted_s: float
    answered_s: float

    @property
    def latency_s(self) -> float:
        """From submission to answer."""
        return self.answered_s - self.submitted_s


@dataclass(frozen=True, slots=True)
class TaskSpan:
    """One run of one task. `ready_s`: the last of its rows was there."""

    frame: int
    task: int
    device: int
    ready_s: float
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class TransferSpan:
    """One message: handed over, first byte out, last byte out, there."""

    frame: int
    transfer: int
    source: int
    target: int
    bytes: int
    queued_s: float
    start_s: float
    end_s: float
    arrived_s: float


@dataclass(frozen=True, slots=True)
class Binding:
    """What a frame's latency is made of: seconds on its critical path by resource.

    Names are `compute NAME`, `link A -> B` and `start` (the first task or message was not begun at once).
    """

    seconds: Mapping[str, float]

    @property
    def most(self) -> str:
        """The resource with the largest share."""
        return max(self.seconds, key=lambda name: self.seconds[name], default="nothing")

    @property
    def share(self) -> float:
        """Its share of the critical path, 0 to 1."""
        total = sum(self.seconds.values())
        return self.seconds[self.most] / total if total else 0.0


@dataclass(frozen=True)
class Timeline:
    """Frames under one plan, in seconds since the first was submitted.

    Attributes:
        plan: the plan.
        frames: answered ones, in the order of their numbers.
        tasks, transfers: in the order in which they ended.
    """

    plan: ExecutionPlan
    frames: tuple[FrameSpan, ...]
    tasks: tuple[TaskSpan, ...]
    transfers: tuple[TransferSpan, ...]

    def name(self, peer: int) -> str:
        """A peer's name; the requester's for -1."""
        return "requester" if peer == REQUESTER else self.plan.devices[peer]

    @property
    def latency_s(self) -> float:
        """The mean over all frames."""
        return sum(frame.latency_s for frame in self.frames) / max(1, len(self.frames))

    @property
    def makespan_s(self) -> float:
        """From the first submission to the last answer."""
        return max((frame.answered_s for frame in self.frames), default=0.0)

    @property
    def images_per_second(self) -> float:
        """Frames answered per second, the filling of the pipeline left out: of n frames the last n/2."""
        answers = sorted(frame.answered_s for frame in self.frames)
        half = len(answers) // 2
        if half < 1 or answers[-1] <= answers[half - 1]:
            return len(answers) / self.makespan_s if self.makespan_s else inf
        return (len(answers) - half) / (answers[-1] - answers[half - 1])

    def busy_s(self, device: int) -> float:
        """Seconds in which the device computes."""
        return sum(task.end_s - task.start_s for task in self.tasks if task.device == device)

    def waiting_s(self, device: int) -> float:
        """Seconds in which the device has a task left of an open frame and does not compute."""
        last: dict[int, float] = {}
        for task in self.tasks:
            if task.device == device:
                last[task.frame] = max(last.get(task.frame, 0.0), task.end_s)
        submitted = {frame.frame: frame.submitted_s for frame in self.frames}
        open_spans = [(submitted.get(frame, 0.0), end) for frame, end in last.items()]
        return max(0.0, _union(open_spans) - self.busy_s(device))

    def sending_s(self, peer: int) -> float:
        """Seconds in which something leaves the peer."""
        return _union([(t.start_s, t.end_s) for t in self.transfers if t.source == peer])

    def receiving_s(self, peer: int) -> float:
        """Seconds in which something is under way to the peer."""
        return _union([(t.start_s, t.end_s) for t in self.transfers if t.target == peer])

    def link_use(self, network: Network) -> dict[str, float]:
        """Bytes carried over bytes possible until the last answer, by `NAME up` and `NAME down`."""
        carried: dict[tuple[int, str], int] = defaultdict(int)
        for transfer in self.transfers:
            carried[transfer.source, "up"] += transfer.bytes
            carried[transfer.target, "down"] += transfer.bytes
        use = {}
        for (peer, way), size in sorted(carried.items()):
            link = network.link(peer)
            rate = link.uplink_mbps if way == "up" else link.downlink_mbps
            use[f"{self.name(peer)} {way}"] = size / (rate * 125_000 * self.makespan_s)
        return use

    @cached_property
    def _by_task(self) -> dict[tuple[int, int], TaskSpan]:
        return {(task.frame, task.task): task for task in self.tasks}

    @cached_property
    def _by_transfer(self) -> dict[tuple[int, int], TransferSpan]:
        return {(t.frame, t.transfer): t for t in self.transfers}

    def binding(self, frame: int | None = None) -> Binding:
        """Follows the critical path back from a frame's answer (the last frame's, if none is named).

        Time between a message's handing over and its arrival counts for its link, a task's run and its wait
        for the compute unit for its device.
        """
        spans = {span.frame: span for span in self.frames}
        if not spans:
            return Binding({})
        number = max(spans) if frame is None else frame
        seconds: dict[str, float] = defaultdict(float)
        at = spans[number].answered_s
        step: TaskSpan | TransferSpan | None
        step = self._last_transfer(number, [item.pieces for item in self.plan.results])
        while step is not None:
            if isinstance(step, TransferSpan):
                name = f"link {self.name(step.source)} -> {self.name(step.target)}"
                seconds[name] += max(0.0, at - step.queued_s)
                at = min(at, step.queued_s)
                made_by = self.plan.transfers[step.transfer].task
                step = self._by_task.get((number, made_by)) if made_by >= 0 else None
            else:
                seconds[f"compute {self.name(step.device)}"] += max(0.0, at - step.ready_s)
                at = min(at, step.ready_s)
                step = self._before(step)
        if at > spans[number].submitted_s + 1e-12:
            seconds["start"] += at - spans[number].submitted_s
        return Binding(dict(seconds))

    def _before(self, task: TaskSpan) -> TaskSpan | TransferSpan | None:
        """What a task waited for last: a message, or a task of its own device."""
        pieces = [item.pieces for item in self.plan.tasks[task.task].inputs]
        message = self._last_transfer(task.frame, pieces)
        local = [self._by_task.get((task.frame, p.task)) for each in pieces for p in each if p.task >= 0]
        ends: list[TaskSpan | TransferSpan] = [t for t in local if t is not None]
        if message is not None:
            ends.append(message)
        return max(ends, key=lambda e: e.arrived_s if isinstance(e, TransferSpan) else e.end_s, default=None)

    def _last_transfer(self, frame: int, pieces: Iterable[Sequence[Any]]) -> TransferSpan | None:
        spans = (
            self._by_transfer.get((frame, p.transfer)) for each in pieces for p in each if p.transfer >= 0
        )
        return max((s for s in spans if s is not None), key=lambda s: s.arrived_s, default=None)

    def shifted(self, by_s: float) -> Timeline:
        """The same, that many seconds later."""

        def move(span: Any, *names: str) -> Any:
            return replace(span, **{name: getattr(span, name) + by_s for name in names})

        return Timeline(
            self.plan,
            tuple(move(f, "submitted_s", "answered_s") for f in self.frames),
            tuple(move(t, "ready_s", "start_s", "end_s") for t in self.tasks),
            tuple(move(t, "queued_s", "start_s", "end_s", "arrived_s") for t in self.transfers),
        )

    def to_trace(self) -> dict[str, Any]:
        """The Chrome trace format, which Perfetto (ui.perfetto.dev) and chrome://tracing open."""
        events: list[dict[str, Any]] = []
        peers = [REQUESTER, *range(len(self.plan.devices))]
        for at, peer in enumerate(peers):
            events.append(_meta("process_name", at, 0, self.name(peer)))
            events.append(_meta("thread_name", at, 0, "compute"))
            events.append(_meta("thread_name", at, 1, "frames"))
            for other in peers:
                events.append(_meta("thread_name", at, 3 + other, f"to {self.name(other)}"))
        for frame in self.frames:
            events.append(_span(f"frame {frame.frame}", 0, 1, frame.submitted_s, frame.answered_s, {}))
        for task in self.tasks:
            spec = self.plan.tasks[task.task]
            rows = {f"rows of {out.tensor}": f"{out.rows.start}:{out.rows.stop}" for out in spec.outputs}
            title = f"volume {spec.volume}" + (f".{spec.stage}" if spec.stage else "")
            about = {"frame": task.frame, "waited_ms": (task.start_s - task.ready_s) * 1e3, **rows}
            events.append(_span(title, peers.index(task.device), 0, task.start_s, task.end_s, about))
        for sent in self.transfers:
            wanted = self.plan.transfers[sent.transfer]
            about = {
                "frame": sent.frame,
                "rows": f"{wanted.rows.start}:{wanted.rows.stop}",
                "bytes": sent.bytes,
                "queued_ms": (sent.start_s - sent.queued_s) * 1e3,
            }
            where = peers.index(sent.source)
            events.append(_span(wanted.tensor, where, 3 + sent.target, sent.start_s, sent.arrived_s, about))
        return {"traceEvents": events, "displayTimeUnit": "ms"}

    def save_trace(self, path: str | Path) -> None:
        """Writes `to_trace` as JSON."""
        Path(path).write_text(json.dumps(self.to_trace()))


def _meta(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def _span(
    name: str, process: int, thread: int, start_s: float, end_s: float, about: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "ph": "X",
        "pid": process,
        "tid": thread,
        "ts": start_s * 1e6,
        "dur": max(0.0, end_s - start_s) * 1e6,
        "args": dict(about),
    }


def _union(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds that at least one of the spans covers."""
    covered, until = 0.0, -inf
    for start, end in sorted(spans):
        if end > until:
            covered += end - max(start, until)
            until = end
    return covered
