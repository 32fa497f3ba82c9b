"""Does what the state machines of a session's models ask for: plans come and go, frames run under them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf

from distredge.errors import PeerError, StrategyError
from distredge.plan.execution import ExecutionPlan
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
    LeaveEpoch,
    LookAhead,
    Members,
    NoPlanFound,
    PlanFound,
    RetireEpoch,
    RowsArrived,
    SendRows,
    SessionEvent,
    Under,
    UseEpoch,
)
from distredge.protocol.messages import DropFrame
from distredge.runtime.blobs import BlobSource
from distredge.runtime.coding import Coded
from distredge.runtime.deployment import Deployment, Line
from distredge.runtime.engine import Array
from distredge.runtime.finder import PlanFinder
from distredge.runtime.frames import Frames
from distredge.runtime.membership import Membership
from distredge.runtime.rollout import Rollout
from distredge.runtime.tally import Measured, Review

_LOG = logging.getLogger(__name__)


class Lines:
    """All models and input shapes of one session. Waits for nothing.

    Args:
        session: of all messages.
        peers: their connections.

    Attributes:
        frames: open and answered ones.
        rollout: the plans on the peers.
        latest: that of the frame that came last, or the newest.
    """

    def __init__(self, session: int, peers: Membership) -> None:
        self.frames = Frames(session, peers.links)
        self.rollout = Rollout(session, peers)
        self._session, self._peers = session, peers
        self.latest: Line | None = None
        self._lines: list[Line] = []
        self._finder = PlanFinder()

    def add(
        self,
        blobs: Sequence[BlobSource],
        find: Callable[[Members], ExecutionPlan] | None = None,
        alone: Callable[[Mapping[str, Array]], list[Array]] | None = None,
    ) -> Line:
        """A model in one input shape; see `Line`."""
        line = Line(self._peers.up, blobs, find, alone)
        self._lines.append(line)
        self.latest = line
        return line

    def end(self, line: Line) -> None:
        """Retires all plans of a line; its frames are given up."""
        for frame in line.state.frames:
            self.drop(frame)
        self._lines.remove(line)
        if self.latest is line:
            self.latest = None
        for epoch in line.state.epochs:
            self.rollout.retire(epoch)

    def close(self) -> None:
        """Ends the thread that decides, and lets go of the models."""
        self._finder.close()
        self.rollout.close()

    # ------------------------------------------------------------------ plans

    def begin(
        self, line: Line, plan: ExecutionPlan, members: Members | None = None, *, asked: bool = False
    ) -> Deployment:
        """Starts to bring the model and a plan to the peers that it involves.

        Args:
            line: whose plan it is.
            plan: for as many devices as there are peers.
            members: the peers that it was made for; None for those that live.
            asked: the line asked for it, and will use it as it likes; otherwise say `use`.

        Raises:
            StrategyError: the plan is not for these peers.
        """
        deployment = self.rollout.add(line, plan)
        epoch = deployment.epoch
        members = self._peers.up if members is None else members
        beside = tuple(way.epoch for way in deployment.ways[1:])
        self._tell(line, PlanFound(epoch, members, plan, asked, beside))
        if deployment.is_over:
            for way in deployment.ways:
                self.rollout.deployments.pop(way.epoch, None)
        return deployment

    def use(self, deployment: Deployment) -> None:
        """Runs new frames of its line under a plan, as soon as it is ready. Nothing, if it is over."""
        if not deployment.is_over:
            self._tell(deployment.line, UseEpoch(deployment.epoch))

    def leave(self, deployment: Deployment) -> None:
        """Retires a plan as soon as its frames are answered and another one is current."""
        self._tell(deployment.line, LeaveEpoch(deployment.epoch))

    def fail(self, deployment: Deployment) -> None:
        """Ends a plan that cannot be used."""
        self._tell(deployment.line, EpochFailed(deployment.epoch))

    def look_ahead(self, line: Line, on: bool) -> None:
        """Whether there are plans ahead of time for the loss of each peer."""
        self._tell(line, LookAhead(on and line.may_look_ahead))

    def current(self, line: Line) -> Deployment | None:
        """The plan of new frames, or the first of those that they are dealt to; None while there is none."""
        return None if line.state.current is None else self.rollout.deployments[line.state.current]

    def current_plan(self, line: Line) -> ExecutionPlan | None:
        """The plan in use, with those beside it; None while there is none."""
        ways = [self.rollout.deployments[epoch].plan for epoch in line.state.ways]
        return ExecutionPlan.dealt(ways) if ways else None

    def replace(self, line: Line, plan: ExecutionPlan) -> None:
        """Uses another plan as soon as the peers that it involves are ready.

        Raises:
            StrategyError: the plan is not for these peers.
        """
        line.successor = self.begin(line, plan)

    # ------------------------------------------------------------------ frames

    def submit(self, line: Line, feed: Mapping[str, Array]) -> int:
        """Sends a frame's inputs to whoever needs them; returns the frame's number."""
        self.latest = line
        frame = self.frames.add(line, feed)
        self._tell(line, FrameSubmitted(frame))
        return frame

    def drop(self, frame: int) -> None:
        """Gives up a frame, answered or not."""
        opened = self.frames.drop(frame)
        if opened is not None:
            self._tell(opened.line, FrameDropped(frame))

    def fail_frame(self, frame: int, epoch: int, error: PeerError) -> None:
        """A peer cannot compute a frame under this plan; nothing, if it runs under another one by now."""
        opened = self.frames.open.get(frame)
        if opened is not None and opened.line.state.epoch_of(frame) == epoch:
            self.drop(frame)
            self.frames.failed[frame] = error

    # ------------------------------------------------------------------ what peers say, and who lives

    def ready(self, at: int, epoch: int) -> None:
        """A peer has prepared a plan."""
        deployment = self.rollout.deployments.get(epoch)
        if deployment is not None:
            self.rollout.moved()
            self._tell(deployment.line, DeviceReady(epoch, at))

    def rows_came(
        self, deployment: Deployment, frame: int, number: int, tensor: str, coded: Coded
    ) -> float | None:
        """Rows from a peer; when they came, None if nobody waits for such rows.

        Raises:
            ProtocolError: they cannot be these rows.
        """
        epoch = deployment.epoch
        if deployment.line.state.epoch_of(frame) != epoch:
            return None
        transfers = deployment.plan.transfers
        if not 0 <= number < len(transfers) or transfers[number].tensor != tensor:
            return None
        now = self.frames.take_rows(deployment, frame, number, coded)
        self._tell(deployment.line, Under(epoch, RowsArrived(frame, number)))
        return now

    def lost(self, at: int) -> None:
        """A peer is gone."""
        for line in self._lines:
            self._tell(line, DeviceLost(at))

    def back(self, at: int) -> None:
        """A peer can be used (again)."""
        for line in self._lines:
            self._tell(line, DeviceBack(at))

    # ------------------------------------------------------------------ now and then

    def take_found(self) -> None:
        """Brings plans that were decided meanwhile to the peers."""
        while self._finder.found:
            line, members, plan = self._finder.found.popleft()
            if line not in self._lines:
                continue
            try:
                if plan is not None:
                    self.begin(line, plan, members, asked=True)
                    continue
            except StrategyError as error:
                _LOG.warning("no plan for peers %s: %s", sorted(members), error)
            self._tell(line, NoPlanFound(members))
        while self._finder.reviewed:
            line, plan = self._finder.reviewed.popleft()
            if plan is not None and line in self._lines and line.successor is None:
                self.replace(line, plan)

    def help(self, now: float) -> bool:
        """Computes a frame of every line here, if no peer can; whether anything was computed."""
        helped = [self._help(line, now) for line in self._lines]
        return any(helped)

    def _help(self, line: Line, now: float) -> bool:
        waiting = line.state.waiting
        if not waiting or not line.state.is_stuck:
            line.stuck_s = inf
            return False
        line.stuck_s = min(line.stuck_s, now)
        if line.alone is None:
            return False
        frame = waiting[0]
        outputs = line.alone(self.frames.open[frame].feed)
        line.state.handle(FrameDropped(frame))
        self.frames.answer(frame, -1, outputs)
        return True

    def succeed(self) -> None:
        """Uses the plans that replace others, once they are ready."""
        for line in self._lines:
            self._succeed(line)

    def _succeed(self, line: Line) -> None:
        successor, current = line.successor, self.current(line)
        if successor is None:
            return
        if successor.are_ready:
            self.use(successor)
            if current is not None and current is not successor:
                self.leave(current)
        if successor.are_ready or successor.is_over:
            line.successor = None

    def review(self) -> None:
        """Lets somebody look at what the plans in use take."""
        for line in self._lines:
            self._review(line)

    def _review(self, line: Line) -> None:
        current = self.current(line)
        if line.review is None or line.successor is not None or current is None or not line.state.is_settled:
            return
        first, *beside = [self._reviewed(self.rollout.deployments[epoch]) for epoch in line.state.ways]
        self._finder.review(line, replace(first, in_flight=len(line.state.frames), beside=tuple(beside)))

    def _reviewed(self, deployment: Deployment) -> Review:
        measured, deployment.measured = deployment.measured, Measured()
        frames = len(deployment.frames)
        return Review(deployment.plan, self._peers.up, measured.runs, measured.transit_s, frames)

    # ------------------------------------------------------------------ inside

    def _tell(self, line: Line, event: SessionEvent) -> None:
        """Tells a line's state machine what happened, and does what it asks for."""
        for instruction in line.state.handle(event):
            match instruction:
                case Under(epoch, SendRows(frame, transfer)):
                    self.frames.send_rows(self.rollout.deployments[epoch], frame, transfer)
                case Under(epoch, DeliverFrame(frame)):
                    self.frames.deliver(self.rollout.deployments[epoch], frame)
                case Under(epoch, ForgetFrame(frame)):
                    deployment = self.rollout.deployments[epoch]
                    self.frames.leave(deployment, frame)
                    self._peers.tell(deployment.involved, DropFrame(self._session, epoch, frame))
                case AnnouncePlan(epoch):
                    self.rollout.announce(epoch)
                case RetireEpoch(epoch):
                    self.rollout.retire(epoch)
                case FindPlan(members):
                    self._finder.ask(line, members)
