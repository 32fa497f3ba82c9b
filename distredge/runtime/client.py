"""The requester's side of a session: connections to its peers, and waiting for them. No threads here."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, cast

import zmq

from distredge import __version__
from distredge.errors import (
    DistrEdgeError,
    PeerError,
    PeerLostError,
    PeerRefusedError,
    PeerTimeoutError,
    ProtocolError,
)
from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.protocol.events import Members
from distredge.protocol.messages import (
    BlobReady,
    Buffer,
    Failure,
    FrameFailed,
    GetTrace,
    LostNeighbour,
    Message,
    NeedBlob,
    Ping,
    PlanReady,
    Pong,
    Trace,
    Welcome,
)
from distredge.runtime.clock import Clocks
from distredge.runtime.coding import Coded
from distredge.runtime.deployment import Deployment, Line, PeerAddress, Processes
from distredge.runtime.engine import Array
from distredge.runtime.keys import KeyPair
from distredge.runtime.lines import Lines
from distredge.runtime.link import Link
from distredge.runtime.membership import SETTLE_S, Loss, Member, Membership
from distredge.runtime.rejections import Rejections
from distredge.runtime.tally import read_reports
from distredge.runtime.trace import FrameTimes, PeerEvents, TraceEvent, read_events
from distredge.runtime.transport import RowsFields, is_readable, receive

_LOG = logging.getLogger(__name__)

TICK_S = 0.1
PING_S = 0.5
REVIEW_S = 1.0
PATIENCE_S = 5.0
"""How long frames wait for a peer to come back when there is none."""
PINGS_AT_ONCE = 8
BATCH = 64


class Client:
    """Connections to all peers of one session. Its methods are for one thread at a time, but for `is_over`,
    `take` and the bell, which makes a thread in `pump` come back.

    Args:
        peers: in the order of the plans' devices.
        timeout_s: how long a peer may take to answer a hello.
        processes: of the peers, if they are this process's children.
        own: our keys; needed for peers that have one.

    Attributes:
        recovers: whether frames go on without a peer that is lost; otherwise that ends the session.
        lines: models and their plans; `pump` goes on with what is begun there.
        observer: told some times a second that the client has looked around, and when.
        busy_s: how long each peer has computed.
        rejected: messages of peers that were not taken, by reason.
        bell: to be rung by a thread that would like to use the client.
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
        self.observer: Callable[[Client, float], None] = lambda client, now: None
        self.busy_s = [0.0] * len(peers)
        self.rejected = Rejections()
        self._timeout_s = timeout_s
        self._context: zmq.Context[Any] = zmq.Context()
        self._charges: list[tuple[float, int, PeerError]] = []
        self._clocks = Clocks(len(peers))
        self._next_tick_s = self._next_ping_s = self._next_review_s = 0.0
        self._traces: dict[int, list[TraceEvent]] = {}
        self._failure: DistrEdgeError | None = None
        try:
            self._peers = Membership(self._context, self.session, peers, processes, own)
        except BaseException:
            self._context.term()
            raise
        self.lines = Lines(self.session, self._peers)
        self._frames, self._rollout = self.lines.frames, self.lines.rollout
        self.bell = self._peers.bell

    @property
    def names(self) -> tuple[str, ...]:
        """The peers', in order."""
        return tuple(member.name for member in self._peers.members)

    @property
    def members(self) -> Members:
        """Peers that live, by number."""
        return self._peers.up

    @property
    def peers(self) -> Sequence[Member]:
        """All of them, and whether they live."""
        return self._peers.members

    @property
    def plans(self) -> dict[int, ExecutionPlan]:
        """Those that are not over, by epoch."""
        return {epoch: deployment.plan for epoch, deployment in self._rollout.deployments.items()}

    def is_over(self, frame: int) -> bool:
        """Whether a frame is answered, or will not be."""
        return self._frames.is_over(frame)

    def take(self, frame: int) -> list[Array]:
        """The outputs of a frame that is over; any thread may call it. Raises PeerError if it failed."""
        return self._frames.take(frame)

    @property
    def times(self) -> Sequence[FrameTimes]:
        """When the latest frames were submitted and answered."""
        return self._frames.times

    # ------------------------------------------------------------------ connecting and closing

    def connect(self, progress: Callable[[str, int, int], None] | None = None) -> None:
        """Greets all peers and waits for their answers.

        Args:
            progress: told from now on what `deploy` waits for, how much of it is done, and how much there is.

        Raises:
            PeerTimeoutError: one does not answer in time.
            PeerRefusedError: one does not accept our key, or is not the one whose key we know.
            ProtocolError: one is of another version.
        """
        if progress is not None:
            self._rollout.progress = progress
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
        if self.rejected:
            _LOG.info("rejected: %s", dict(self.rejected))
        self.lines.close()
        self._peers.close(farewell=self._failure is None)
        self._context.term()

    # ------------------------------------------------------------------ plans and frames

    def deploy(self, line: Line, plan: ExecutionPlan) -> Deployment:
        """As `Lines.begin`, but waits until the peers are ready.

        Raises:
            PeerError: a peer cannot use the plan.
            PeerLostError: a peer that it involves was lost, or is.
            PeerTimeoutError: nothing got any further for long.
            StrategyError: the plan is not for these peers.
        """
        self._rollout.moved()
        deployment = self.lines.begin(line, plan)
        try:
            while not deployment.are_ready:
                if (failure := deployment.why) is not None:
                    raise failure
                if deployment.is_over:
                    raise PeerLostError(f"a peer that the plan involves is lost: {self._peers.last_loss()}")
                self._rollout.check_progress(deployment)
                self._rollout.tell_progress(deployment)
                self.pump(TICK_S)
            self._rollout.tell_progress(deployment)
        except BaseException:
            self.lines.fail(deployment)
            raise
        return deployment

    def wait(self, frame: int) -> list[Array]:
        """The outputs of a frame, as soon as they are complete. Raises as `pump`.

        Raises:
            PeerLostError: nobody is left to compute it.
            PeerError: a peer cannot compute it; other frames go on.
        """
        while not self.is_over(frame):
            self.pump_for([frame], TICK_S)
        return self.take(frame)

    def pump_for(self, frames: Iterable[int], timeout_s: float) -> None:
        """As `pump`, for somebody who waits for these frames. Raises as `wait`."""
        self.pump(timeout_s)
        now = time.monotonic()
        for frame in frames:
            opened = self._frames.open.get(frame)
            if opened is not None and now - opened.line.stuck_s > PATIENCE_S:
                raise PeerLostError(f"no peer is left: {self._peers.last_loss()}")

    def run(self, line: Line, feed: Mapping[str, Array]) -> int:
        """Computes one frame and forgets its outputs; returns its number."""
        frame = self.lines.submit(line, feed)
        self.wait(frame)
        return frame

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
        self.lines.take_found()
        now = time.monotonic()
        if now >= self._next_tick_s:
            self._next_tick_s = now + TICK_S
            self._tick(now)

    def _receive(self, at: int, link: Link) -> None:
        try:
            _, message, payload = receive(link.socket, routed=False)
        except ProtocolError as error:
            if error.context.get("other_version") and not link.welcomed:
                self._refuse(at, f"speaks another protocol version; install DistrEdge {__version__} there")
            self.rejected.met(str(error))
            return
        link.heard_s = time.monotonic()
        if type(message) is list:
            self._on_rows(at, message, payload)
            return
        message = cast(Message, message)
        if message.session != self.session:
            self.rejected.met("of another session")
            return
        match message:
            case Welcome(_, _, version, _):
                self._on_welcome(at, link, version)
            case Pong(_, number, clock_s):
                self._clocks.answered(at, number, link.heard_s, clock_s)
                if payload is not None:
                    self._on_reports(at, payload)
            case NeedBlob(_, sha256, offset):
                self._rollout.blob_needed(at, sha256, offset)
            case BlobReady(_, sha256):
                self._rollout.blob_ready(at, sha256)
            case PlanReady(_, epoch, device) if device == at:
                self.lines.ready(at, epoch)
            case Trace() if payload is not None:
                self._traces[at] = read_events(payload)
            case LostNeighbour(_, epoch, about, text):
                deployment = self._rollout.deployments.get(epoch)
                if deployment is not None and about in deployment.involved:
                    self._peers.complain(epoch, at, about, text)
            case FrameFailed(_, epoch, frame, _, text):
                name = self.names[at]
                self.lines.fail_frame(frame, epoch, PeerError(f"peer {name} {text}", peer=name))
            case Failure(_, epoch, _, text):
                self._on_failure(at, epoch, text)
            case Ping():
                pass  # peers only find out by it whether we are there
            case other:
                self.rejected.met(f"{type(other).__name__} that is not for this requester")

    def _on_welcome(self, at: int, link: Link, version: str) -> None:
        if link.welcomed:
            self.rejected.met("a second Welcome")
            return
        if version != __version__:
            text = f"runs DistrEdge {version}, this is {__version__}; install the same version on both"
            self._refuse(at, text)
            return
        link.welcomed = True
        if self._peers.welcomed(at):
            self.lines.back(at)

    def _on_rows(self, at: int, fields: RowsFields, payload: Buffer | None) -> None:
        session, epoch, frame, number, tensor, *_, sent_s, coding = fields
        deployment = self._rollout.deployments.get(epoch)
        if session != self.session or payload is None or deployment is None:
            self.rejected.met("rows that are of no plan here")
            return
        try:
            came_s = self.lines.rows_came(deployment, frame, number, tensor, Coded(coding, payload))
        except ProtocolError as error:
            self._fail(ProtocolError(f"peer {self.names[at]} sent rows that do not fit: {error}"))
        if came_s is not None:
            deployment.arrived(number, came_s - sent_s + self._clocks.offset_s(at))

    def _on_reports(self, at: int, payload: Buffer) -> None:
        """What a peer's parts and transfers took. If it is not to be understood, it is not missed."""
        try:
            reports = read_reports(payload)
        except ProtocolError as error:
            self.rejected.met(str(error))
            return
        for report in reports:
            deployment = self._rollout.deployments.get(report.epoch)
            if deployment is not None:
                deployment.book(at, report, self._clocks.offset_s)
                self.busy_s[at] += sum(seconds for _, _, seconds in report.runs)

    # ------------------------------------------------------------------ who lives

    def _tick(self, now: float) -> None:
        preparing = [d for d in self._rollout.deployments.values() if not d.is_ready]
        patient = frozenset[int]().union(*(deployment.involved for deployment in preparing))
        for loss in list(self._peers.find_lost(now, patient=patient)):
            self._lose(loss)
        self._judge(now)
        if self.recovers:
            self._peers.knock(now)
            if self.lines.help(now):
                self._next_tick_s = now
        self.lines.succeed()
        if now >= self._next_review_s:
            self._next_review_s = now + REVIEW_S
            self.lines.review()
        if now >= self._next_ping_s:
            self._next_ping_s = now + PING_S
            self._send_pings()
        self.observer(self, now)

    def _send_pings(self) -> None:
        ping = Ping(self.session, self._clocks.ask(time.monotonic()))
        for at in sorted(self.members):
            self._peers.links[at].send_message(ping, self._rollout.take_transits(at))

    def _lose(self, loss: Loss, *, cut_off: bool = False) -> None:
        """A peer is gone."""
        name = self.names[loss.at]
        if not self.recovers:
            self._fail(PeerLostError(f"peer {name} {loss.how}", peer=name))
        was_up = self._peers.members[loss.at].is_up
        self._peers.lose(loss, cut_off=cut_off)
        self._rollout.forget(loss.at)
        if was_up:
            _LOG.warning("peer %s %s", name, loss.how)
            self.lines.lost(loss.at)

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
        deployment = self._rollout.deployments.get(epoch)
        if epoch >= 0 and deployment is None:
            return  # of a plan that is over
        if self.recovers and deployment is not None and not deployment.is_ready:
            _LOG.warning("%s", error)
            deployment.failure = error
            self.lines.fail(deployment)
            return
        self._charges.append((time.monotonic() + SETTLE_S, epoch, error))

    def _judge(self, now: float) -> None:
        """After a moment in which a death would have explained them: failures, and complaints of peers
        about each other."""
        epochs = tuple(self._rollout.deployments)
        self._charges = [each for each in self._charges if each[1] < 0 or each[1] in epochs]
        for due_s, _, error in self._charges:
            if now >= due_s:
                self._fail(error)
        while (judged := self._peers.judge(now, tuple(self._rollout.deployments))) is not None:
            loss, by, text = judged
            if not self.recovers:
                self._fail(PeerError(f"peer {self.names[by]} {text}", peer=self.names[by]))
            self._lose(loss, cut_off=True)

    def _fail(self, error: DistrEdgeError) -> NoReturn:
        """Ends the session."""
        self._failure = error
        raise error

    # ------------------------------------------------------------------ measuring

    def collect_traces(self) -> list[PeerEvents]:
        """What each peer that lives and the requester did since the last question, and their clocks."""
        for _ in range(PINGS_AT_ONCE):
            self._send_pings()
        self._traces.clear()
        self._peers.tell(self.members, GetTrace(self.session))
        while not self.members <= set(self._traces):
            self.pump(TICK_S)
        collected = [PeerEvents("requester", REQUESTER, 0.0, list(self._frames.events))]
        self._frames.events.clear()
        for at, events in sorted(self._traces.items()):
            collected.append(PeerEvents(self.names[at], at, self._clocks.offset_s(at), events))
        return collected
