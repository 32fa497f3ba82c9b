"""A peer on a virtual clock that may crash, hang and be cut off; its decisions are the real ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from distredge.errors import ProtocolError
from distredge.plan.execution import ExecutionPlan
from distredge.protocol.epochs import Verdict
from distredge.protocol.events import (
    ForgetFrame,
    FrameDropped,
    Instruction,
    PartFinished,
    RejectRows,
    RowsArrived,
    RunPart,
    SendRows,
)
from distredge.protocol.provider import ProviderState

if TYPE_CHECKING:
    from distredge.sim.faults import FaultRun

Source = tuple[int, int]
"""A transfer (id, -1) or a task (-1, id): where rows come from."""


class Hosted:
    """One epoch on one peer: its state machine, and which rows it holds of each frame."""

    def __init__(self, epoch: int, plan: ExecutionPlan) -> None:
        self.epoch, self.plan = epoch, plan
        self.state: ProviderState | None = None
        self.early: list[tuple[int, int]] = []
        self.held: dict[int, set[Source]] = {}
        self.is_over = False


class FaultyPeer:
    """What `distredge.runtime`'s peer does, without sockets, threads and numbers.

    Args:
        run: the world.
        device: its number.
    """

    def __init__(self, run: FaultRun, device: int) -> None:
        self.run, self.device = run, device
        self.is_alive, self.hung_until = True, 0.0
        self.life = 0
        self.memory = 0
        """Rises whenever something is forgotten: what was started before counts no more."""
        self.forget()

    def forget(self) -> None:
        """Of the session everything; as after a start."""
        self.identity = -1
        self.book = self.run.parts.book()
        self.jobs: deque[tuple[Hosted, int, int]] = deque()
        self.running: tuple[Hosted, int, int] | None = None
        self.memory += 1

    def end(self) -> None:
        """The process ends; what is on its way to it is lost."""
        self.is_alive, self.hung_until = False, 0.0
        self.life += 1
        self.forget()

    # ------------------------------------------------------------------ from the requester

    def join(self, identity: int) -> None:
        """Another connection speaks for the session from now on."""
        if self.identity != identity:
            self.forget()
            self.identity = identity

    def use(self, epoch: int, plan: ExecutionPlan) -> None:
        """Prepares a plan."""
        try:
            self.book.announce(epoch, Hosted(epoch, plan))
        except ProtocolError as error:
            self.run.note(f"device {self.device} refuses epoch {epoch}: {error}")
            return
        self._check_kept()
        self.run.later(self.run.draw(0.05), self._built, epoch, self.memory)

    def _hangs(self, what: Callable[..., None], *arguments: Any) -> bool:
        """Whether nothing happens here now; it will, later."""
        if self.run.now >= self.hung_until:
            return False
        self.run.later(self.hung_until - self.run.now, what, *arguments)
        return True

    def _built(self, epoch: int, memory: int) -> None:
        if self._hangs(self._built, epoch, memory):
            return
        if memory != self.memory or epoch not in self.book.plans:
            return
        hosted = self.book.plans[epoch]
        hosted.state = self.run.parts.provider(hosted.plan, self.device)
        self.run.network.tell_requester(self, "ready", epoch)
        for frame, transfer in hosted.early:
            self._take(hosted, frame, transfer)
        hosted.early.clear()

    def retire(self, epoch: int) -> None:
        """Ends an epoch."""
        if epoch in self.book.plans:
            self.book.retire(epoch).is_over = True

    def drop(self, epoch: int, frame: int) -> None:
        """Gives up a frame."""
        hosted = self.book.plans.get(epoch)
        if hosted is not None and hosted.state is not None and not hosted.is_over:
            self._perform(hosted, hosted.state.handle(FrameDropped(frame)))

    # ------------------------------------------------------------------ rows

    def rows(self, sender: int, epoch: int, frame: int, transfer: int) -> None:
        """Rows from the requester or a neighbour."""
        verdict = self.book.judge(epoch) if self.identity >= 0 else Verdict.UNKNOWN
        if verdict is Verdict.UNKNOWN:
            self.run.network.answer_unknown(self, sender, epoch)
            return
        if verdict is Verdict.LATE:
            return
        hosted = self.book.plans[epoch]
        if hosted.is_over:
            return
        if hosted.state is None:
            hosted.early.append((frame, transfer))
        else:
            self._take(hosted, frame, transfer)

    def _take(self, hosted: Hosted, frame: int, transfer: int) -> None:
        assert hosted.state is not None
        instructions = hosted.state.handle(RowsArrived(frame, transfer))
        if not (instructions and type(instructions[0]) is RejectRows):
            held = hosted.held.get(frame)
            if held is None:
                held = hosted.held[frame] = set()
                self._check_kept()
            held.add((transfer, -1))
        self._perform(hosted, instructions)

    def lose_neighbour(self, other: int) -> None:
        """The connection to a neighbour is gone, and with it every plan that needs it."""
        for epoch, hosted in self.book.plans.items():
            if not hosted.is_over and other in self.run.world.facts(hosted.plan).targets[self.device]:
                hosted.is_over = True
                self.run.network.tell_requester(self, "complaint", epoch, other)

    # ------------------------------------------------------------------ computing

    def _perform(self, hosted: Hosted, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case RunPart(frame, task):
                    self.jobs.append((hosted, frame, task))
                case SendRows(frame, transfer):
                    wanted = hosted.plan.transfers[transfer]
                    source = (-1, wanted.task)
                    if wanted.task >= 0 and source not in hosted.held.get(frame, ()):
                        self.run.violation(f"device {self.device} sends rows that it has not: {instruction}")
                    self.run.network.send_rows(self.device, wanted.target, hosted.epoch, frame, transfer)
                case ForgetFrame(frame):
                    hosted.held.pop(frame, None)
                case RejectRows():
                    pass
        self._start()

    def _start(self) -> None:
        while self.running is None and self.jobs:
            hosted, frame, task = self.jobs.popleft()
            if hosted.is_over:
                continue
            held = hosted.held.get(frame, set())
            missing = self.run.world.facts(hosted.plan).sources[task] - held
            if missing and frame in hosted.held:
                self.run.violation(
                    f"device {self.device} runs task {task} of frame {frame} without {missing}"
                )
            self.running = (hosted, frame, task)
            self.run.later(self.run.draw(0.06), self._finished, self.memory)

    def _finished(self, memory: int) -> None:
        if self._hangs(self._finished, memory):
            return
        if memory != self.memory or self.running is None:
            return
        (hosted, frame, task), self.running = self.running, None
        if not hosted.is_over and hosted.state is not None:
            if frame in hosted.held:
                hosted.held[frame].add((-1, task))
            self._perform(hosted, hosted.state.handle(PartFinished(frame, task)))
        self._start()

    def _check_kept(self) -> None:
        self.run.check_kept(f"device {self.device}", len(self.book.plans), self.frames)

    @property
    def frames(self) -> int:
        """Frames of which something is kept."""
        return sum(len(hosted.held) for hosted in self.book.plans.values() if not hosted.is_over)
