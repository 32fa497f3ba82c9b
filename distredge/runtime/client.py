"""The requester's side of a session: plans and frames over the peers that live. No threads here."""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from math import inf
from typing import Any, NamedTuple, NoReturn, cast

import msgpack
import zmq

from distredge import __version__
from distredge.errors import (
    DistrEdgeError,
    PeerError,
    PeerLostError,
    PeerRefusedError,
    PeerTimeoutError,
    ProtocolError,
    StrategyError,
)
from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.plan.serde import to_plain
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
    Members,
    NoPlanFound,
    PlanFound,
    RetireEpoch,
    RowsArrived,
    SendRows,
    SessionInstruction,
    Under,
    UseEpoch,
)
from distredge.protocol.messages import (
    BlobReady,
    Buffer,
    DropFrame,
    Failure,
    GetTrace,
    LostNeighbour,
    Message,
    NeedBlob,
    Ping,
    PlanReady,
    Pong,
    RetirePlan,
    Trace,
    UsePlan,
    Welcome,
)
from distredge.runtime.blobs import BlobSource
from distredge.runtime.clock import Clocks
from distredge.runtime.deployment import Deployment, Line, PeerAddress, Processes
from distredge.runtime.engine import Array, copied, from_payload, owned, to_payload
from distredge.runtime.finder import PlanFinder
from distredge.runtime.keys import KeyPair
from distredge.runtime.link import Link
from distredge.runtime.membership import SETTLE_S, Loss, Membership
from distredge.runtime.supply import BlobSupply
from distredge.runtime.tally import Measured, Review, read_reports
from distredge.runtime.trace import FrameTimes, PeerEvents, TraceEvent, read_events
from distredge.runtime.transport import MESSAGE_LIMIT, RowsFields, is_readable, receive, rows_header, size_of

_LOG = logging.getLogger(__name__)

TICK_S = 0.1
PING_S = 0.5
REVIEW_S = 1.0
PREPARE_S = 300.0
"""A peer that builds sessions says nothing until it is done, and may be slow; but not as slow as that."""
PATIENCE_S = 5.0
"""How long frames wait for a peer to come back when there is none."""
PINGS_AT_ONCE = 8
BATCH = 64
TIMES_KEPT, EVENTS_KEPT = 20_000, 20_000


class _Open(NamedTuple):
    """A frame that is not answered: everything that is needed to send it again."""

    line: Line
    feed: Mapping[str, Array]
    submitted_s: float


class Client:
    """Connections to all peers of one session. Its methods are not for several threads at once.

    Args:
        peers: in the order of the plans' devices.
        timeout_s: how long a peer may take to answer a hello.
        processes: of the peers, if they are this process's children.
        own: our keys; needed for peers that have one.

    Attributes:
        progress: told what `deploy` waits for, how much of it is done, and how much there is.
        recovers: whether frames go on without a peer that is lost; otherwise that ends the session.
    """

    def __init__(
        self,
        peers: Sequence[PeerAddress],
        *,
        timeout_s: float = 10.0,
        processes: Processes | None = None,
        own: KeyPair | None = None,
    ) -> None:
        self.session = secrets.randbits(62)
        self.recovers = False
        self.progress: Callable[[str, int, int], None] = lambda what, done, of: None
        self.finished: dict[int, list[Array]] = {}
        self.times: deque[FrameTimes] = deque(maxlen=TIMES_KEPT)
        self.events: deque[TraceEvent] = deque(maxlen=EVENTS_KEPT)
        self._timeout_s = timeout_s
        self._context: zmq.Context[Any] = zmq.Context()
        self._epochs = count()
        self._frames = count()
        self._open: dict[int, _Open] = {}
        self._lines: list[Line] = []
        self._deployments: dict[int, Deployment] = {}
        self._announcing: list[Deployment] = []
        self._charges: list[tuple[float, int, PeerError]] = []
        self._finder = PlanFinder()
        self._clocks = Clocks(len(peers))
        self._next_tick_s = self._next_ping_s = self._next_review_s = 0.0
        self._traces: dict[int, list[TraceEvent]] = {}
        self._failure: DistrEdgeError | None = None
        self._progress_s = 0.0
        self._membership: Membership | None = None
        try:
            self._peers = self._membership = Membership(self._context, self.session, peers, processes, own)
            self._supply = BlobSupply(self.session, self._peers.links)
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> tuple[str, ...]:
        """The peers', in order."""
        return tuple(member.name for member in self._peers.members)

    @property
    def members(self) -> Members:
        """Peers that live, by number."""
        return self._peers.up

    # ------------------------------------------------------------------ connecting and closing

    def connect(self) -> None:
        """Greets all peers and waits for their answers.

        Raises:
            PeerTimeoutError: one does not answer in time.
            PeerRefusedError: one does not accept our key, or is not the one whose key we know.
            ProtocolError: one is of another version.
        """
        self._peers.greet()
        deadline = time.monotonic() + self._timeout_s
        while silent := [member for member in self._peers.members if not member.is_up]:
            first = next((member.link for member in silent if member.link.is_refused), silent[0].link)
            if first.is_refused or time.monotonic() > deadline:
                raise self._unanswered(first)
            self.pump(min(TICK_S, max(0.0, deadline - time.monotonic())))

    def _unanswered(self, link: Link) -> PeerError:
        where = f"peer {link.name} at {link.address}"
        if link.complaint and link.is_encrypted:
            return PeerRefusedError(f"{where} {link.complaint}", peer=link.name)
        what = link.complaint or f"did not answer within {self._timeout_s:g} s"
        by_hand = f"distredge peer --bind {link.address.removeprefix('tcp://')}"
        start = f"start it with `{'fab start' if link.is_encrypted else by_hand}`"
        return PeerTimeoutError(f"{where} {what}; {start}", peer=link.name)

    def close(self) -> None:
        """Says goodbye and closes all sockets."""
        self._finder.close()
        if self._membership is not None:
            self._membership.close(farewell=self._failure is None)
            self._supply.close()
        self._context.term()

    # ------------------------------------------------------------------ plans

    def line(
        self,
        blobs: Sequence[BlobSource],
        find: Callable[[Members], ExecutionPlan] | None = None,
        alone: Callable[[Mapping[str, Array]], list[Array]] | None = None,
    ) -> Line:
        """A model in one input shape; see `Line`."""
        line = Line(self.members, blobs, find, alone)
        self._lines.append(line)
        return line

    def end(self, line: Line) -> None:
        """Retires all plans of a line; its frames are given up."""
        for frame in line.state.frames:
            self.drop(frame)
        self._lines.remove(line)
        for epoch in line.state.epochs:
            self._retire(epoch)

    def begin(
        self, line: Line, plan: ExecutionPlan, members: Members | None = None, *, asked: bool = False
    ) -> Deployment:
        """Starts to bring the model and a plan to the peers that it involves; `pump` goes on with it.

        Args:
            line: whose plan it is.
            plan: for as many devices as there are peers.
            members: the peers that it was made for; None for those that live.
            asked: the line asked for it, and will use it as it likes; otherwise say `use`.

        Raises:
            StrategyError: the plan is not for these peers.
        """
        peers = len(self._peers.members)
        if len(plan.devices) != peers:
            raise StrategyError(f"the plan is for {len(plan.devices)} devices, there are {peers} peers")
        for transfer in plan.transfers:
            size = plan.transfer_bytes(transfer)
            if size > MESSAGE_LIMIT:
                raise StrategyError(
                    f"rows of {transfer.tensor!r} would make a message of {size} bytes; "
                    f"the limit is {MESSAGE_LIMIT}; use more peers, or cut the depth elsewhere"
                )
        deployment = Deployment(next(self._epochs), plan, line)
        self._deployments[deployment.epoch] = deployment
        found = PlanFound(deployment.epoch, self.members if members is None else members, plan, asked)
        self._perform(line, line.state.handle(found))
        if deployment.is_over:
            self._deployments.pop(deployment.epoch, None)
        return deployment

    def deploy(self, line: Line, plan: ExecutionPlan) -> Deployment:
        """As `begin`, but waits until the peers are ready.

        Raises:
            PeerError: a peer cannot use the plan.
            PeerLostError: a peer that it involves was lost, or is.
            PeerTimeoutError: nothing got any further for long.
            StrategyError: the plan is not for these peers.
        """
        self._progress_s = time.monotonic()
        deployment = self.begin(line, plan)
        try:
            while not deployment.is_ready:
                if deployment.failure is not None:
                    raise deployment.failure
                if deployment.is_over:
                    raise PeerLostError(f"a peer that the plan involves is lost: {self._peers.last_loss()}")
                self._check_progress(deployment)
                self._tell_progress(deployment)
                self.pump(TICK_S)
            self._tell_progress(deployment)
        except BaseException:
            self._perform(line, line.state.handle(EpochFailed(deployment.epoch)))
            raise
        return deployment

    def _check_progress(self, deployment: Deployment) -> None:
        if time.monotonic() - self._progress_s > PREPARE_S:
            lacking = self._supply.missing(deployment.line.blobs, deployment.involved)
            what = "did not take the model" if lacking else "did not get ready for the plan"
            member = self._peers.members[min(lacking or deployment.involved)]
            raise PeerTimeoutError(
                f"peer {member.name} at {member.address} {what} in {PREPARE_S:g} s", peer=member.name
            )

    def _tell_progress(self, deployment: Deployment) -> None:
        done, of = self._supply.under_way
        if of:
            self.progress("sending the model, MB", done // 1_000_000, of // 1_000_000)
        elif not self._supply.missing(deployment.line.blobs, deployment.involved):
            count = len(deployment.involved)
            unready = deployment.line.state.unready(deployment.epoch)
            self.progress("peers ready", count - len(unready), count)

    def use(self, deployment: Deployment) -> None:
        """Runs new frames of its line under a plan, as soon as it is ready. Nothing, if it is over."""
        if not deployment.is_over:
            line = deployment.line
            self._perform(line, line.state.handle(UseEpoch(deployment.epoch)))

    def leave(self, deployment: Deployment) -> None:
        """Retires a plan as soon as its frames are answered and another one is current."""
        line = deployment.line
        self._perform(line, line.state.handle(LeaveEpoch(deployment.epoch)))

    def current(self, line: Line) -> Deployment | None:
        """The plan of new frames; None while there is none."""
        return None if line.state.current is None else self._deployments[line.state.current]

    @property
    def plans(self) -> dict[int, ExecutionPlan]:
        """Those that are not over, by epoch."""
        return {epoch: deployment.plan for epoch, deployment in self._deployments.items()}

    def _announce(self, epoch: int) -> None:
        deployment = self._deployments[epoch]
        self._announcing.append(deployment)
        self._supply.offer(deployment.line.blobs, deployment.involved)
        self._announce_supplied()

    def _announce_supplied(self) -> None:
        """Sends the plans whose model is everywhere by now."""
        for deployment in list(self._announcing):
            if self._supply.missing(deployment.line.blobs, deployment.involved):
                continue
            self._announcing.remove(deployment)
            document = bytes(msgpack.packb(to_plain(deployment.plan)))
            addresses = tuple(member.address for member in self._peers.members)
            for device in sorted(deployment.involved):
                message = UsePlan(self.session, deployment.epoch, device, addresses, self._peers.keys)
                self._peers.links[device].send_message(message, document)
        if not self._announcing:
            self._supply.close()

    def _retire(self, epoch: int) -> None:
        deployment = self._deployments.pop(epoch, None)
        if deployment is not None:
            if deployment in self._announcing:
                self._announcing.remove(deployment)
            else:
                self._peers.tell(deployment.involved, RetirePlan(self.session, epoch))

    def _take_found(self) -> None:
        """Plans that were decided meanwhile."""
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
            self._perform(line, line.state.handle(NoPlanFound(members)))

        while self._finder.reviewed:
            line, plan = self._finder.reviewed.popleft()
            if plan is not None and line in self._lines and line.successor is None:
                self.replace(line, plan)

    # ------------------------------------------------------------------ frames

    def submit(self, line: Line, feed: Mapping[str, Array]) -> int:
        """Sends a frame's inputs to whoever needs them; returns the frame's number.

        The feed may change as soon as this returns; `finished` will hold the outputs.
        """
        frame = next(self._frames)
        # Kept until it is answered, in case that it must be sent again.
        kept = {name: copied(value) for name, value in feed.items()}
        self._open[frame] = _Open(line, kept, time.monotonic())
        self._perform(line, line.state.handle(FrameSubmitted(frame)))
        return frame

    def wait(self, frame: int) -> list[Array]:
        """The outputs of a frame, as soon as they are complete. Raises as `pump`.

        Raises:
            PeerLostError: nobody is left to compute it.
        """
        self.wait_any([frame])
        return self.finished.pop(frame)

    def wait_any(self, frames: Iterable[int]) -> int:
        """One of these frames that is complete; waits until there is one. Raises as `wait`."""
        wanted = list(frames)
        while not (done := [frame for frame in wanted if frame in self.finished]):
            self.pump(TICK_S)
            self._check_stuck(wanted)
        return done[0]

    def pump_for(self, frames: Iterable[int], timeout_s: float) -> None:
        """As `pump`, for somebody who waits for these frames. Raises as `wait`."""
        self.pump(timeout_s)
        self._check_stuck(frames)

    def _check_stuck(self, frames: Iterable[int]) -> None:
        now = time.monotonic()
        for frame in frames:
            opened = self._open.get(frame)
            if opened is not None and now - opened.line.stuck_s > PATIENCE_S:
                raise PeerLostError(f"no peer is left: {self._peers.last_loss()}")

    def run(self, line: Line, feed: Mapping[str, Array]) -> int:
        """Computes one frame and forgets its outputs; returns its number."""
        frame = self.submit(line, feed)
        self.wait(frame)
        return frame

    def drop(self, frame: int) -> None:
        """Gives up a frame, answered or not."""
        self.finished.pop(frame, None)
        opened = self._open.pop(frame, None)
        if opened is not None:
            self._perform(opened.line, opened.line.state.handle(FrameDropped(frame)))

    def _perform(self, line: Line, instructions: list[SessionInstruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Under(epoch, SendRows(frame, transfer)):
                    self._send_rows(self._deployments[epoch], frame, transfer)
                case Under(epoch, DeliverFrame(frame)):
                    deployment = self._deployments[epoch]
                    self._enter(deployment, frame)
                    self._deliver(frame, epoch, deployment.store.result(frame))
                    self._leave_frame(deployment, frame)
                case Under(epoch, ForgetFrame(frame)):
                    deployment = self._deployments[epoch]
                    self._leave_frame(deployment, frame)
                    self._peers.tell(deployment.involved, DropFrame(self.session, epoch, frame))
                case AnnouncePlan(epoch):
                    self._announce(epoch)
                case RetireEpoch(epoch):
                    self._retire(epoch)
                case FindPlan(members):
                    self._finder.ask(line, members)

    def _enter(self, deployment: Deployment, frame: int) -> None:
        """Puts a frame's inputs into the buffers of the plan that it runs under."""
        if frame not in deployment.frames:
            deployment.frames.add(frame)
            deployment.store.put_inputs(frame, self._open[frame].feed)

    @staticmethod
    def _leave_frame(deployment: Deployment, frame: int) -> None:
        deployment.frames.discard(frame)
        deployment.store.forget(frame)

    def _send_rows(self, deployment: Deployment, frame: int, transfer: int) -> None:
        self._enter(deployment, frame)
        target, fields = deployment.routes[transfer]
        array = deployment.store.rows_to_send(frame, transfer)
        start = time.monotonic()
        header = rows_header(self.session, deployment.epoch, frame, *fields, start)
        self._peers.links[target].send(header, to_payload(array))
        self.events.append(TraceEvent("send", frame, transfer, start, time.monotonic(), array.nbytes))

    def _deliver(self, frame: int, epoch: int, outputs: Sequence[Array]) -> None:
        submitted_s = self._open.pop(frame).submitted_s
        # What came in one piece lies in a message's memory, which nobody may write to.
        self.finished[frame] = [owned(array) for array in outputs]
        self.times.append(FrameTimes(frame, epoch, submitted_s, time.monotonic()))

    # ------------------------------------------------------------------ receiving

    def pump(self, timeout_s: float) -> None:
        """Receives everything that is there; waits at most `timeout_s` for something.

        Raises:
            PeerLostError: a peer is gone, and the session does not recover.
            PeerError: a peer reports a failure.
            ProtocolError: a peer does not speak this protocol.
        """
        if self._failure is not None:
            raise self._failure
        patience_s = min(timeout_s, TICK_S)
        for link in self._peers.links:
            if link.is_waiting and link.flush():
                patience_s = min(patience_s, 0.001)
        for at, link in self._peers.readable(patience_s):
            for _ in range(BATCH):
                if link.socket.closed or not is_readable(link.socket):
                    break
                self._receive(at, link)
        if self._finder.found or self._finder.reviewed:
            self._take_found()
        now = time.monotonic()
        if now >= self._next_tick_s:
            self._next_tick_s = now + TICK_S
            self._tick(now)

    def _receive(self, at: int, link: Link) -> None:
        try:
            _, message, payload = receive(link.socket, routed=False)
        except ProtocolError as error:
            if error.context.get("other_version"):
                self._refuse(at, f"speaks another protocol version; install DistrEdge {__version__} there")
            return
        link.heard_s = time.monotonic()
        if type(message) is list:
            self._on_rows(at, message, payload)
            return
        match cast(Message, message):
            case Welcome(_, _, version, _):
                if version != __version__:
                    text = (
                        f"runs DistrEdge {version}, this is {__version__}; install the same version on both"
                    )
                    self._refuse(at, text)
                    return
                link.welcomed = True
                if self._peers.welcomed(at):
                    self._back(at)
            case Pong(_, number, clock_s):
                self._clocks.answered(at, number, link.heard_s, clock_s)
                if payload is not None:
                    self._measured(at, payload)
            case NeedBlob(_, sha256, offset):
                self._progress_s = link.heard_s
                self._supply.needed(at, sha256, offset)
            case BlobReady(_, sha256):
                self._progress_s = link.heard_s
                self._supply.ready(at, sha256)
                self._announce_supplied()
            case PlanReady(_, epoch, device):
                if device == at and epoch in self._deployments:
                    self._progress_s = link.heard_s
                    line = self._deployments[epoch].line
                    self._perform(line, line.state.handle(DeviceReady(epoch, device)))
            case Trace() if payload is not None:
                self._traces[at] = read_events(payload)
            case LostNeighbour(session, epoch, about, text) if session == self.session:
                if epoch in self._deployments and about in self._deployments[epoch].involved:
                    self._peers.complain(epoch, at, about, text)
            case Failure(session, epoch, _, text) if session == self.session:
                self._on_failure(at, epoch, text)

    def _on_rows(self, at: int, fields: RowsFields, payload: Buffer | None) -> None:
        session, epoch, frame, number, tensor, *_, sent_s = fields
        deployment = self._deployments.get(epoch)
        if session != self.session or deployment is None or payload is None:
            return
        plan, state = deployment.plan, deployment.line.state
        if not 0 <= number < len(plan.transfers) or plan.transfers[number].tensor != tensor:
            return
        if state.epoch_of(frame) != epoch:
            return
        now = time.monotonic()
        try:
            array = from_payload(payload, plan.tensors[tensor], plan.transfers[number].rows)
        except ProtocolError as error:
            self._fail(ProtocolError(f"peer {self.names[at]} sent rows that do not fit: {error}"))
        deployment.store.put_transfer(frame, number, array)
        self.events.append(TraceEvent("receive", frame, number, now, now, size_of(payload)))
        deployment.measured.arrived(number, now - sent_s + self._clocks.offset_s(at))
        self._perform(deployment.line, state.handle(Under(epoch, RowsArrived(frame, number))))

    # ------------------------------------------------------------------ who lives

    def _tick(self, now: float) -> None:
        preparing = [d for d in self._deployments.values() if not d.is_ready]
        patient = frozenset[int]().union(*(deployment.involved for deployment in preparing))
        for loss in list(self._peers.find_lost(now, patient=patient)):
            self._lose(loss)
        self._judge(now)
        if self.recovers:
            self._peers.knock(now)
            for line in self._lines:
                self._help(line, now)
        for line in self._lines:
            self._succeed(line)
        if now >= self._next_review_s:
            self._next_review_s = now + REVIEW_S
            for line in self._lines:
                self._review(line)
        if now >= self._next_ping_s:
            self._next_ping_s = now + PING_S
            self._send_pings()

    def _send_pings(self) -> None:
        self._peers.tell(self.members, Ping(self.session, self._clocks.ask(time.monotonic())))

    def _lose(self, loss: Loss, *, cut_off: bool = False) -> None:
        """A peer is gone."""
        name = self.names[loss.at]
        if not self.recovers:
            self._fail(PeerLostError(f"peer {name} {loss.how}", peer=name))
        was_up = self._peers.members[loss.at].is_up
        self._peers.lose(loss, cut_off=cut_off)
        self._supply.forget(loss.at)
        if was_up:
            _LOG.warning("peer %s %s", name, loss.how)
            for line in self._lines:
                self._perform(line, line.state.handle(DeviceLost(loss.at)))

    def _back(self, at: int) -> None:
        """A peer can be used (again)."""
        for line in self._lines:
            self._perform(line, line.state.handle(DeviceBack(at)))

    def _refuse(self, at: int, text: str) -> None:
        """A peer speaks otherwise than this process."""
        member = self._peers.members[at]
        how = f"at {member.address} {text}"
        if not self.recovers:
            self._fail(ProtocolError(f"peer {member.name} {how}", peer=member.name))
        self._lose(Loss(at, how), cut_off=True)

    def _on_failure(self, at: int, epoch: int, text: str) -> None:
        name = self.names[at]
        error = PeerError(f"peer {name} {text}", peer=name)
        deployment = self._deployments.get(epoch)
        if epoch >= 0 and deployment is None:
            return  # of a plan that is over
        if self.recovers and deployment is not None and not deployment.is_ready:
            _LOG.warning("%s", error)
            deployment.failure = error
            self._perform(deployment.line, deployment.line.state.handle(EpochFailed(epoch)))
            return
        self._charges.append((time.monotonic() + SETTLE_S, epoch, error))

    def _judge(self, now: float) -> None:
        """After a moment in which a death would have explained them: failures, and complaints of peers
        about each other."""
        self._charges = [each for each in self._charges if each[1] < 0 or each[1] in self._deployments]
        for due_s, _, error in self._charges:
            if now >= due_s:
                self._fail(error)
        while (judged := self._peers.judge(now, tuple(self._deployments))) is not None:
            loss, by, text = judged
            if not self.recovers:
                self._fail(PeerError(f"peer {self.names[by]} {text}", peer=self.names[by]))
            self._lose(loss, cut_off=True)

    def _help(self, line: Line, now: float) -> None:
        """Computes a frame here if no peer can."""
        waiting = line.state.waiting
        if not waiting or not line.state.is_stuck:
            line.stuck_s = inf
            return
        line.stuck_s = min(line.stuck_s, now)
        if line.alone is not None:
            frame = waiting[0]
            outputs = line.alone(self._open[frame].feed)
            line.state.handle(FrameDropped(frame))
            self._deliver(frame, -1, outputs)
            self._next_tick_s = now

    def _fail(self, error: DistrEdgeError) -> NoReturn:
        """Ends the session."""
        self._failure = error
        raise error

    # ------------------------------------------------------------------ measuring

    def _measured(self, at: int, payload: Buffer) -> None:
        """What a peer's parts and transfers took. If it is not to be understood, it is not missed."""
        try:
            reports = read_reports(payload)
        except ProtocolError:
            return
        for report in reports:
            deployment = self._deployments.get(report.epoch)
            if deployment is None:
                continue
            plan, measured = deployment.plan, deployment.measured
            for task, times, seconds in report.runs:
                if 0 <= task < len(plan.tasks) and plan.tasks[task].device == at:
                    measured.ran(task, times, seconds)
            for number, seconds in report.arrivals:
                if 0 <= number < len(plan.transfers) and plan.transfers[number].target == at:
                    source = plan.transfers[number].source
                    offset_s = 0.0 if source == REQUESTER else self._clocks.offset_s(source)
                    measured.arrived(number, seconds - self._clocks.offset_s(at) + offset_s)

    def replace(self, line: Line, plan: ExecutionPlan) -> None:
        """Uses another plan as soon as the peers that it involves are ready; `pump` goes on with it.

        Raises:
            StrategyError: the plan is not for these peers.
        """
        line.successor = self.begin(line, plan)

    def _succeed(self, line: Line) -> None:
        """Uses the plan that replaces another, once it is ready."""
        successor, current = line.successor, self.current(line)
        if successor is None:
            return
        if successor.is_ready:
            self.use(successor)
            if current is not None and current is not successor:
                self.leave(current)
        if successor.is_ready or successor.is_over:
            line.successor = None

    def _review(self, line: Line) -> None:
        """Lets somebody look at what the plan in use takes."""
        current = self.current(line)
        if line.review is None or line.successor is not None or current is None or not line.state.is_settled:
            return
        measured, current.measured = current.measured, Measured()
        frames = len(line.state.frames)
        self._finder.review(
            line, Review(current.plan, self.members, measured.runs, measured.transit_s, frames)
        )

    def collect_traces(self) -> list[PeerEvents]:
        """What each peer that lives and the requester did since the last question, and their clocks."""
        for _ in range(PINGS_AT_ONCE):
            self._send_pings()
        self._traces.clear()
        self._peers.tell(self.members, GetTrace(self.session))
        while not self.members <= set(self._traces):
            self.pump(TICK_S)
        collected = [PeerEvents("requester", REQUESTER, 0.0, list(self.events))]
        self.events.clear()
        for at, events in sorted(self._traces.items()):
            collected.append(PeerEvents(self.names[at], at, self._clocks.offset_s(at), events))
        return collected
