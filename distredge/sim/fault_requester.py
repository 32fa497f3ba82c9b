"""The requester on a virtual clock; its decisions are the real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.protocol.events import (
    AnnouncePlan,
    DeliverFrame,
    DeviceBack,
    DeviceLost,
    DeviceReady,
    FindPlan,
    ForgetFrame,
    FrameDropped,
    FrameSubmitted,
    LeaveEpoch,
    Members,
    PlanFound,
    RejectRows,
    RetireEpoch,
    RowsArrived,
    SendRows,
    SessionEvent,
    SessionInstruction,
    Under,
    UseEpoch,
)

if TYPE_CHECKING:
    from distredge.sim.faults import FaultRun

SETTLE_S, KNOCK_S, CUT_OFF_S = 0.3, 0.2, 5.0
"""As in `distredge.runtime.membership`."""
PLAN_S = 0.02
"""That a policy takes."""


class FaultyRequester:
    """What `distredge.runtime`'s client does, without sockets and numbers.

    Args:
        run: the world.
        frames: how many to submit.
        in_flight: open at a time.

    Attributes:
        state: the real decisions.
        received: by epoch and frame, which transfers are here.
        has_begun: whether a first plan is in use.
    """

    def __init__(self, run: FaultRun, frames: int, in_flight: int) -> None:
        self._run, self._frames, self._in_flight = run, frames, in_flight
        self.state = run.parts.succession(run.world.everybody)
        self.answered: list[int] = []
        self.received: dict[tuple[int, int], set[int]] = {}
        self.has_begun = False
        self._plans: dict[int, ExecutionPlan] = {}
        self._dropped: set[int] = set()
        self._submitted = 0
        self._epochs = 0

    @property
    def is_done(self) -> bool:
        """Whether every frame is answered, or was given up."""
        return len(self.answered) + len(self._dropped) == self._frames

    @property
    def over(self) -> list[int]:
        """Frames that are."""
        return sorted({*self.answered, *self._dropped})

    # ------------------------------------------------------------------ what the application does

    def use(self, plan: ExecutionPlan, members: Members) -> None:
        """Its own decision: used once it is ready, and the one before is left."""
        before = self.state.current
        numbers = self._add(plan, members, asked=False)
        number = numbers[0]
        if number not in self.state.epochs:
            return

        def try_to_use() -> None:
            if not set(numbers) <= set(self.state.epochs):
                return
            if not all(map(self.state.is_ready, numbers)):
                self._run.later(0.02, try_to_use)
                return
            self._run.note(f"epoch {number} is used")
            self.has_begun = True
            self._tell(UseEpoch(number))
            if before is not None:
                self._tell(LeaveEpoch(before))

        try_to_use()

    def submit(self) -> None:
        """As many frames as may be open."""
        while self._submitted < self._frames and len(self.state.frames) < self._in_flight:
            frame, self._submitted = self._submitted, self._submitted + 1
            self._tell(FrameSubmitted(frame))

    def drop(self, at: int) -> None:
        """Gives one of the open frames up."""
        frames = self.state.frames
        if frames:
            frame = frames[at % len(frames)]
            self._dropped.add(frame)
            self._tell(FrameDropped(frame))
            self._run.later(0.0, self.submit)

    # ------------------------------------------------------------------ what peers say

    def take_rows(self, epoch: int, frame: int, number: int) -> None:
        """Rows of a transfer."""
        if (epoch, frame) in self.received:
            self.received[epoch, frame].add(number)
        self._tell(Under(epoch, RowsArrived(frame, number)))

    def hear(self, sender: int, what: str, epoch: int, about: int) -> None:
        """Anything else."""
        if what == "welcome":
            if sender not in self.state.members:
                self._run.note(f"device {sender} is back")
                self._tell(DeviceBack(sender))
        elif what == "ready":
            self._tell(DeviceReady(epoch, sender))
        else:
            self._run.later(SETTLE_S, self._judge, epoch, sender, about)

    def _judge(self, epoch: int, by: int, about: int) -> None:
        if epoch in self.state.epochs and {by, about} <= self.state.members:
            self._run.note(f"device {by} complains of {about}")
            self._lose(about, CUT_OFF_S)

    def notices(self, device: int, identity: int) -> None:
        """A connection of this identity to a peer was lost."""
        if self._run.network.identity[device] == identity and device in self.state.members:
            self._lose(device)

    def _lose(self, device: int, wait_s: float = 0.0) -> None:
        """Takes a peer for lost, and knocks again later."""
        self._run.note(f"device {device} is lost")
        self._run.network.hang_up(device)
        self._tell(DeviceLost(device))
        self._run.later(wait_s + self._run.draw(KNOCK_S), self._knock, device)

    def _knock(self, device: int) -> None:
        if device in self.state.members:
            return
        network = self._run.network
        network.hang_up(device)
        network.say(device, "join", network.identity[device])
        self._run.later(0.5 + self._run.draw(KNOCK_S), self._knock, device)

    # ------------------------------------------------------------------ what the state machine wants

    def _tell(self, event: SessionEvent) -> None:
        self._perform(self.state.handle(event))

    def _perform(self, instructions: list[SessionInstruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Under(epoch, SendRows(frame, number)):
                    self.received.setdefault((epoch, frame), set())
                    target = self._plans[epoch].transfers[number].target
                    self._run.network.send_rows(REQUESTER, target, epoch, frame, number)
                case Under(epoch, DeliverFrame(frame)):
                    self._deliver(epoch, frame)
                case Under(epoch, ForgetFrame(frame)):
                    self.received.pop((epoch, frame), None)
                    self._say_all(self._plans[epoch], "drop", epoch, frame)
                case Under(_, RejectRows()):
                    pass
                case FindPlan(members):
                    self._run.later(self._run.draw(PLAN_S), self._found, members)
                case AnnouncePlan(epoch):
                    self._run.check_kept("the requester", len(self.state.epochs), len(self.received))
                    self._say_all(self._plans[epoch], "use", epoch, self._plans[epoch])
                case RetireEpoch(epoch):
                    for key in [key for key in self.received if key[0] == epoch]:
                        del self.received[key]
                    self._say_all(self._plans.pop(epoch), "retire", epoch)

    def _say_all(self, plan: ExecutionPlan, what: str, *arguments: object) -> None:
        for device in self._run.world.facts(plan).involved:
            self._run.network.say(device, what, *arguments)

    def _found(self, members: Members) -> None:
        self._add(self._run.world.plans[members], members, asked=True)

    def _add(self, plan: ExecutionPlan, members: Members, *, asked: bool) -> tuple[int, ...]:
        """Makes a plan known, and those beside it, under the next numbers, unless it comes too late."""
        ways = self._run.world.ways(plan)
        numbers = tuple(range(self._epochs + 1, self._epochs + 1 + len(ways)))
        self._epochs += len(ways)
        self._plans.update(zip(numbers, ways, strict=True))
        self._tell(PlanFound(numbers[0], members, plan, asked, numbers[1:]))
        for number in set(numbers).difference(self.state.epochs):
            self._plans.pop(number, None)
        return numbers

    def _deliver(self, epoch: int, frame: int) -> None:
        run = self._run
        if frame in self.answered or frame in self._dropped:
            run.violation(f"frame {frame} is answered again")
        have = self.received.pop((epoch, frame), set())
        for result in self._plans[epoch].results:
            for piece in result.pieces:
                if piece.transfer >= 0 and piece.transfer not in have:
                    run.violation(f"frame {frame} is answered without transfer {piece.transfer}")
        run.note(f"frame {frame} is answered by epoch {epoch}")
        self.answered.append(frame)
        run.disturbed(run.now)
        run.later(0.0, self.submit)
