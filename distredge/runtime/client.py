"""The requester's side of all connections: hellos, plans, frames, liveness, clocks. No threads here."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any, NoReturn, cast

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
    DeliverFrame,
    FrameDropped,
    FrameSubmitted,
    Instruction,
    RowsArrived,
    SendRows,
)
from distredge.protocol.messages import (
    BlobReady,
    Buffer,
    Bye,
    DropFrame,
    Failure,
    GetTrace,
    Hello,
    Message,
    NeedBlob,
    Ping,
    PlanReady,
    Pong,
    RetirePlan,
    Trace,
    UsePlan,
    Welcome,
    encode,
)
from distredge.runtime.blobs import BlobSource
from distredge.runtime.clock import Clocks
from distredge.runtime.deployment import Deployment, PeerAddress, Processes
from distredge.runtime.engine import Array, from_payload, to_payload
from distredge.runtime.keys import KeyPair
from distredge.runtime.link import Link
from distredge.runtime.supply import BlobSupply
from distredge.runtime.trace import FrameTimes, PeerEvents, TraceEvent, read_events
from distredge.runtime.transport import MESSAGE_LIMIT, RowsFields, is_readable, receive, rows_header

TICK_S = 0.1
PING_S = 1.0
SILENCE_S = 4.0
"""A peer that answers no ping for so long is lost, even if its connection stands."""
PREPARE_S = 300.0
"""A peer that builds sessions says nothing until it is done, and may be slow; but not as slow as that."""
SETTLE_S = 0.3
"""After a peer's complaint about another: time to see which one is really gone."""
PINGS_AT_ONCE = 8
BATCH = 64
TIMES_KEPT, EVENTS_KEPT = 20_000, 20_000


class Client:
    """Connections to all peers of one session. Its methods are not for several threads at once.

    Args:
        peers: in the order of the plans' devices.
        timeout_s: how long a peer may take to answer a hello.
        processes: of the peers, if they are this process's children.
        own: our keys; needed for peers that have one.
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
        self.finished: dict[int, list[Array]] = {}
        self.times: deque[FrameTimes] = deque(maxlen=TIMES_KEPT)
        self.events: deque[TraceEvent] = deque(maxlen=EVENTS_KEPT)
        self._timeout_s = timeout_s
        self._processes = processes
        self._keys = tuple(peer.key for peer in peers)
        self._context: zmq.Context[Any] = zmq.Context()
        self._links: list[Link] = []
        self._poller = zmq.Poller()
        self._by_socket: dict[Any, int] = {}
        self._deployments: dict[int, Deployment] = {}
        self._epochs = count()
        self._frames = count()
        self._submitted_s: dict[int, float] = {}
        self._feed: Mapping[str, Array] = {}
        self._supply = BlobSupply(self.session, self._links)
        self._clocks = Clocks(len(peers))
        self._next_tick_s = self._next_ping_s = 0.0
        self._traces: dict[int, list[TraceEvent]] = {}
        self._failure: DistrEdgeError | None = None
        self._preparing = False
        self._progress_s = 0.0
        try:
            for peer in peers:
                link = Link(self._context, peer.name, peer.address, own, peer.key)
                self._links.append(link)
                self._by_socket[link.socket] = len(self._by_socket)
                self._poller.register(link.socket, zmq.POLLIN)
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> tuple[str, ...]:
        """The peers', in order."""
        return tuple(link.name for link in self._links)

    # ------------------------------------------------------------------ connecting and closing

    def connect(self) -> None:
        """Greets all peers and waits for their answers.

        Raises:
            PeerTimeoutError: one does not answer in time.
            PeerRefusedError: one does not accept our key, or is not the one whose key we know.
            ProtocolError: one is of another version.
        """
        for link in self._links:
            link.send_message(Hello(self.session, "requester", __version__))
        deadline = time.monotonic() + self._timeout_s
        while silent := [link for link in self._links if not link.welcomed]:
            first = next((link for link in silent if link.is_refused), silent[0])
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
        for link in self._links:
            if link.welcomed and self._failure is None:
                link.send_message(Bye(self.session))
            link.close(farewell=link.welcomed and self._failure is None)
        self._supply.close()
        self._links.clear()
        self._context.term()

    # ------------------------------------------------------------------ plans

    def deploy(self, plan: ExecutionPlan, blobs: Sequence[BlobSource]) -> Deployment:
        """Brings the model and a plan to all peers, and waits until they are ready.

        Args:
            plan: for as many devices as there are peers.
            blobs: the model's weights and graph.

        Raises:
            PeerError: a peer cannot use the plan.
            StrategyError: the plan is not for these peers.
        """
        if len(plan.devices) != len(self._links):
            raise StrategyError(
                f"the plan is for {len(plan.devices)} devices, there are {len(self._links)} peers"
            )
        for transfer in plan.transfers:
            size = plan.transfer_bytes(transfer)
            if size > MESSAGE_LIMIT:
                raise StrategyError(
                    f"rows of {transfer.tensor!r} would make a message of {size} bytes; "
                    f"the limit is {MESSAGE_LIMIT}; use more peers, or cut the depth elsewhere"
                )
        deployment = Deployment(next(self._epochs), plan)
        self._deployments[deployment.epoch] = deployment
        self._preparing = True
        self._progress_s = time.monotonic()
        try:
            self._supply.offer(blobs)
            while missing := self._supply.missing:
                self._await(missing, "did not take the model")
            document = bytes(msgpack.packb(to_plain(plan)))
            addresses = tuple(link.address for link in self._links)
            for device, link in enumerate(self._links):
                link.send_message(
                    UsePlan(self.session, deployment.epoch, device, addresses, self._keys), document
                )
            while missing := set(range(len(self._links))) - deployment.ready:
                self._await(missing, "did not get ready for the plan")
        except BaseException:
            self.retire(deployment)
            raise
        finally:
            self._preparing = False
            self._supply.close()
            self._next_ping_s = 0.0
        return deployment

    def _await(self, missing: set[int], what: str) -> None:
        """Waits a moment for peers that prepare something.

        Raises:
            PeerTimeoutError: nothing got any further for long.
        """
        if time.monotonic() - self._progress_s > PREPARE_S:
            link = self._links[min(missing)]
            raise PeerTimeoutError(
                f"peer {link.name} at {link.address} {what} in {PREPARE_S:g} s", peer=link.name
            )
        self.pump(TICK_S)

    def retire(self, deployment: Deployment) -> None:
        """Tells the peers to forget a plan."""
        if self._deployments.pop(deployment.epoch, None) is not None:
            self._tell_all(RetirePlan(self.session, deployment.epoch))

    def _tell_all(self, message: Message) -> None:
        header = encode(message)
        for link in self._links:
            link.send(header)

    # ------------------------------------------------------------------ frames

    def submit(self, deployment: Deployment, feed: Mapping[str, Array]) -> int:
        """Sends a frame's inputs to whoever needs them; returns the frame's number.

        The feed may change as soon as this returns; `finished` will hold the outputs.
        """
        frame = next(self._frames)
        kept = {
            # An input that is also an output is handed back at the end: by then it may have changed.
            name: array.copy() if name in deployment.plan.outputs else array
            for name, array in feed.items()
        }
        deployment.store.put_inputs(frame, kept)
        self._submitted_s[frame] = time.monotonic()
        self._feed = feed
        self._perform(deployment, deployment.state.handle(FrameSubmitted(frame)))
        self._feed = {}
        return frame

    def wait(self, frame: int) -> list[Array]:
        """The outputs of a frame, as soon as they are complete. Raises as `pump`."""
        while frame not in self.finished:
            self.pump(TICK_S)
        return self.finished.pop(frame)

    def wait_any(self, frames: Iterable[int]) -> int:
        """One of these frames that is complete; waits until there is one. Raises as `pump`."""
        wanted = list(frames)
        while not (done := [frame for frame in wanted if frame in self.finished]):
            self.pump(TICK_S)
        return done[0]

    def run(self, deployment: Deployment, feed: Mapping[str, Array]) -> int:
        """Computes one frame and forgets its outputs; returns its number."""
        frame = self.submit(deployment, feed)
        self.wait(frame)
        return frame

    def drop(self, deployment: Deployment, frame: int) -> None:
        """Gives up a frame."""
        if self.finished.pop(frame, None) is not None or frame not in self._submitted_s:
            return
        del self._submitted_s[frame]
        deployment.state.handle(FrameDropped(frame))
        deployment.store.forget(frame)
        self._tell_all(DropFrame(self.session, deployment.epoch, frame))

    def _perform(self, deployment: Deployment, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case SendRows(frame, transfer):
                    self._send_rows(deployment, frame, transfer)
                case DeliverFrame(frame):
                    self._deliver(deployment, frame)

    def _send_rows(self, deployment: Deployment, frame: int, transfer: int) -> None:
        target, fields = deployment.routes[transfer]
        array = deployment.store.rows_to_send(frame, transfer)
        start = time.monotonic()
        header = rows_header(self.session, deployment.epoch, frame, *fields, start)
        # Rows that lie together are part of the caller's own array, which it may fill anew at any time.
        is_callers = array.base is not None or any(array is given for given in self._feed.values())
        self._links[target].send(header, to_payload(array), copy=is_callers)
        self.events.append(TraceEvent("send", frame, transfer, start, time.monotonic(), array.nbytes))

    def _deliver(self, deployment: Deployment, frame: int) -> None:
        submitted_s = self._submitted_s.pop(frame)
        # What came in one piece lies in a message's memory, which nobody may write to.
        self.finished[frame] = [
            array if array.flags.writeable and array.base is None else array.copy()
            for array in deployment.store.result(frame)
        ]
        deployment.store.forget(frame)
        self.times.append(FrameTimes(frame, deployment.epoch, submitted_s, time.monotonic()))

    # ------------------------------------------------------------------ receiving

    def pump(self, timeout_s: float) -> None:
        """Receives everything that is there; waits at most `timeout_s` for something.

        Raises:
            PeerLostError: a peer is gone.
            PeerError: a peer reports a failure.
            ProtocolError: a peer does not speak this protocol.
        """
        if self._failure is not None:
            raise self._failure
        patience_s = min(timeout_s, TICK_S)
        for link in self._links:
            if link.is_waiting and link.flush():
                patience_s = min(patience_s, 0.001)
        for socket, _ in self._poller.poll(int(1000 * patience_s)):
            at = self._by_socket[socket]
            self._receive(at)
            for _ in range(BATCH):
                if not is_readable(socket):
                    break
                self._receive(at)
        now = time.monotonic()
        if now >= self._next_tick_s:
            self._next_tick_s = now + TICK_S
            self._tick(now)

    def _receive(self, at: int) -> None:
        link = self._links[at]
        try:
            _, message, payload = receive(link.socket, routed=False)
        except ProtocolError as error:
            if error.context.get("other_version"):
                text = f"peer {link.name} at {link.address} speaks another protocol version"
                self._fail(ProtocolError(f"{text}; install DistrEdge {__version__} there", peer=link.name))
            return
        link.heard_s = time.monotonic()
        if type(message) is list:
            self._on_rows(at, message, payload)
            return
        match cast(Message, message):
            case Welcome(_, _, version, _):
                if version != __version__:
                    text = (
                        f"peer {link.name} at {link.address} runs DistrEdge {version}, this is {__version__}"
                    )
                    self._fail(ProtocolError(f"{text}; install the same version on both", peer=link.name))
                link.welcomed = True
            case Pong(_, number, clock_s):
                self._clocks.answered(at, number, link.heard_s, clock_s)
            case NeedBlob(_, sha256, offset):
                self._progress_s = link.heard_s
                self._supply.needed(at, sha256, offset)
            case BlobReady(_, sha256):
                self._progress_s = link.heard_s
                self._supply.ready(at, sha256)
            case PlanReady(_, epoch, device):
                if device == at and epoch in self._deployments:
                    self._progress_s = link.heard_s
                    self._deployments[epoch].ready.add(device)
            case Trace() if payload is not None:
                self._traces[at] = read_events(payload)
            case Failure(session, _, text) if session == self.session:
                self._fail(PeerError(f"peer {link.name} {text}", peer=link.name), settle=True)

    def _on_rows(self, at: int, fields: RowsFields, payload: Buffer | None) -> None:
        session, epoch, frame, number, tensor, *_ = fields
        deployment = self._deployments.get(epoch)
        if session != self.session or deployment is None or payload is None:
            return
        plan = deployment.plan
        if not 0 <= number < len(plan.transfers) or plan.transfers[number].tensor != tensor:
            return
        if frame not in self._submitted_s:
            return
        now = time.monotonic()
        try:
            array = from_payload(payload, plan.tensors[tensor], plan.transfers[number].rows)
        except ProtocolError as error:
            self._fail(ProtocolError(f"peer {self._links[at].name} sent rows that do not fit: {error}"))
        deployment.store.put_transfer(frame, number, array)
        self.events.append(TraceEvent("receive", frame, number, now, now, array.nbytes))
        self._perform(deployment, deployment.state.handle(RowsArrived(frame, number)))

    # ------------------------------------------------------------------ liveness

    def _tick(self, now: float) -> None:
        self._check_alive(now)
        if now >= self._next_ping_s:
            self._next_ping_s = now + PING_S
            self._send_pings()

    def _send_pings(self) -> None:
        self._tell_all(Ping(self.session, self._clocks.ask(time.monotonic())))

    def _check_alive(self, now: float) -> None:
        dead = self._processes.find_dead() if self._processes is not None else None
        if dead is not None:
            name, how = dead
            self._fail(PeerLostError(f"peer {name} {how}", peer=name))
        for link in self._links:
            if link.is_broken() and link.welcomed:
                text = (
                    f"peer {link.name} at {link.address} closed its connection or cannot be reached any more"
                )
                self._fail(PeerLostError(text, peer=link.name))
            # While it prepares a plan, a peer's interpreter may be busy for long. Its connection is watched.
            if link.welcomed and not self._preparing and now - link.heard_s > SILENCE_S:
                text = f"peer {link.name} at {link.address} has not answered for {now - link.heard_s:.1f} s"
                self._fail(PeerLostError(text, peer=link.name))

    def _fail(self, error: DistrEdgeError, *, settle: bool = False) -> NoReturn:
        """Ends the session. With `settle`, looks first whether a peer's death explains the complaint."""
        deadline = time.monotonic() + SETTLE_S
        while settle and time.monotonic() < deadline:
            self._check_alive(time.monotonic())
            time.sleep(0.02)
        self._failure = error
        raise error

    # ------------------------------------------------------------------ measuring

    def collect_traces(self) -> list[PeerEvents]:
        """What each peer and the requester did since the last question, and their clocks."""
        for _ in range(PINGS_AT_ONCE):
            self._send_pings()
        self._traces.clear()
        self._tell_all(GetTrace(self.session))
        while len(self._traces) < len(self._links):
            self.pump(TICK_S)
        collected = [PeerEvents("requester", REQUESTER, 0.0, list(self.events))]
        self.events.clear()
        for at, link in enumerate(self._links):
            collected.append(PeerEvents(link.name, at, self._clocks.offset_s(at), self._traces[at]))
        return collected
