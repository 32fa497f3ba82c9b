"""The peers' own state machines on a virtual clock: any number of frames, and whatever goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Protocol

from distredge.cluster.network import Network
from distredge.errors import DistrEdgeError
from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.protocol.events import (
    DeliverFrame,
    Event,
    ForgetFrame,
    FrameSubmitted,
    Instruction,
    PartFinished,
    RejectRows,
    RowsArrived,
    RunPart,
    SendRows,
)
from distredge.protocol.provider import ProviderState
from distredge.protocol.requester import RequesterState
from distredge.sim.fluid import FluidNetwork, Sent
from distredge.sim.pace import Paces, Running
from distredge.sim.recorder import Recorder
from distredge.sim.timeline import Timeline


class Faults(Protocol):
    """What goes wrong. Seeded by whoever makes it."""

    def extra_delay_s(self, frame: int, transfer: int) -> float:
        """How much later than it should a message arrives; infinity if it is lost. Unequal delays reorder."""
        ...

    def crash_s(self, device: int) -> float:
        """When a device stops for good; infinity for never."""
        ...


_Message = tuple[int, int]
"""Frame and transfer."""


class Replay:
    """One run of a plan.

    Args:
        plan: the compiled plan.
        task_s: seconds of each task, by its id.
        network: the links.
        faults: what goes wrong, if anything.
    """

    def __init__(
        self,
        plan: ExecutionPlan,
        task_s: Sequence[float],
        network: Network,
        faults: Faults | None = None,
    ) -> None:
        self._plan = plan
        self._task_s = task_s
        self._network = network
        self._faults = faults
        self._bytes = [plan.sent_bytes(transfer) for transfer in plan.transfers]
        self._states: dict[int, ProviderState | RequesterState] = {REQUESTER: RequesterState(plan)}
        for device in range(len(plan.devices)):
            self._states[device] = ProviderState(plan, device)
        self._paces = Paces(network)
        self._flows: FluidNetwork[_Message] = FluidNetwork(network)
        self._events: list[tuple[float, int, int, Event]] = []
        self._order = count()
        self._now = 0.0
        self._dead: set[int] = set()
        self._log = Recorder(plan)
        self._waiting: list[int] = []

    def run(self, frames: int, in_flight: int = 1, interval_s: float | None = None) -> Timeline:
        """Submits frames and follows them.

        Args:
            frames: how many.
            in_flight: open frames at a time; the next is submitted when one is answered.
            interval_s: submit one every so many seconds instead, however many are open.

        Raises:
            DistrEdgeError: nothing moves any more and frames are open, though nothing went wrong.
        """
        if interval_s is not None:
            for frame in range(frames):
                self._at(frame * interval_s, REQUESTER, FrameSubmitted(frame))
        else:
            self._waiting = list(range(frames - 1, -1, -1))
            for _ in range(min(in_flight, frames)):
                self._at(0.0, REQUESTER, FrameSubmitted(self._waiting.pop()))
        if self._faults is not None:
            for device in range(len(self._plan.devices)):
                if (when := self._faults.crash_s(device)) < inf:
                    heappush(self._events, (when, -1, device, FrameSubmitted(-1)))
        self._loop()
        timeline = self._log.build()
        if len(timeline.frames) < frames and self._faults is None:
            raise DistrEdgeError(f"the plan comes to a standstill: {len(timeline.frames)} of {frames} frames")
        return timeline

    def _loop(self) -> None:
        while True:
            next_sent = self._flows.next_end(self._now)
            if self._paces.any:
                self._set_paces()
            next_event = self._events[0][0] if self._events else inf
            if min(next_sent, next_event) == inf:
                return
            if next_sent <= next_event:
                self._now = max(self._now, next_sent)
                for sent in self._flows.finish(next_sent):
                    self._arrive(sent)
            else:
                when, order, peer, event = heappop(self._events)
                if type(event) is PartFinished and not self._is_due(peer, order):
                    continue
                self._now = when
                if order < 0:
                    self._dead.add(peer)
                    self._flows.drop(peer)
                elif peer not in self._dead:
                    self._tell(peer, event)

    def _at(self, when: float, peer: int, event: Event) -> int:
        number = next(self._order)
        heappush(self._events, (when, number, peer, event))
        return number

    def _set_paces(self) -> None:
        """Devices compute as fast as what leaves and comes lets them."""
        for device in range(len(self._plan.devices)):
            if self._paces.change(device, self._flows.rates(device), self._now):
                self._plan_end(device)

    def _plan_end(self, device: int) -> None:
        running = self._paces.running[device]
        finished = PartFinished(running.frame, running.task)
        running.event = self._at(self._paces.end_s(device), device, finished)

    def _is_due(self, device: int, event: int) -> bool:
        """Whether a task ends with this event: not if another end was found for it since."""
        running = self._paces.running.get(device)
        if running is None or running.event != event:
            return False
        del self._paces.running[device]
        return True

    def _arrive(self, sent: Sent[_Message]) -> None:
        frame, number = sent.message
        transfer = self._plan.transfers[number]
        arrival = self._now + self._network.overhead_s(transfer.source, transfer.target)
        if self._faults is not None:
            arrival += self._faults.extra_delay_s(frame, number)
        if arrival < inf:
            self._log.sent(frame, number, sent.start_s, sent.end_s, arrival, self._bytes[number])
            self._at(arrival, transfer.target, RowsArrived(frame, number))

    def _tell(self, peer: int, event: Event) -> None:
        match event:
            case FrameSubmitted(frame):
                self._log.submitted(frame, self._now)
            case PartFinished(frame, task):
                self._log.finished(frame, task, self._now)
        for instruction in self._states[peer].handle(event):
            self._perform(peer, instruction)

    def _perform(self, peer: int, instruction: Instruction) -> None:
        match instruction:
            case RunPart(frame, task):
                self._log.started(frame, task, self._now)
                self._paces.running[peer] = Running(frame, task, self._task_s[task], self._now, -1)
                self._plan_end(peer)
            case SendRows(frame, number):
                transfer = self._plan.transfers[number]
                self._log.queued(frame, number, self._now)
                if transfer.target not in self._dead:
                    pair = (transfer.source, transfer.target)
                    self._flows.send(self._now, pair, self._bytes[number], (frame, number))
            case DeliverFrame(frame):
                self._log.answered(frame, self._now)
                if self._waiting:
                    self._at(self._now, REQUESTER, FrameSubmitted(self._waiting.pop()))
            case ForgetFrame():
                pass
            case RejectRows():
                if self._faults is None:
                    raise DistrEdgeError(f"device {peer}: {instruction}")


def replay(
    plan: ExecutionPlan,
    task_s: Sequence[float],
    network: Network,
    *,
    frames: int = 1,
    in_flight: int = 1,
    interval_s: float | None = None,
) -> Timeline:
    """What happens when frames run under a plan and nothing goes wrong; see `Replay`."""
    return Replay(plan, task_s, network).run(frames, in_flight, interval_s)
