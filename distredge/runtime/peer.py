"""One provider process: the I/O thread that owns the sockets, and whom it serves."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgpack
import zmq

from distredge import __version__
from distredge.errors import DistrEdgeError, ProtocolError
from distredge.graph.importer import default_cache_dir
from distredge.protocol.epochs import Verdict
from distredge.protocol.messages import (
    BlobChunk,
    Buffer,
    Bye,
    DropFrame,
    Failure,
    GetTrace,
    Hello,
    Join,
    Message,
    OfferBlob,
    Ping,
    Pong,
    RetirePlan,
    Trace,
    UsePlan,
    Welcome,
    encode,
)
from distredge.runtime.blobs import CHUNK_BYTES, BlobStore, Replies
from distredge.runtime.compute import DutyCycle
from distredge.runtime.guard import Guard
from distredge.runtime.lifeline import Lifeline
from distredge.runtime.mailroom import in_one_line
from distredge.runtime.plans import PlanHost
from distredge.runtime.rejections import Rejections
from distredge.runtime.tally import read_reports
from distredge.runtime.tenant import Tenant
from distredge.runtime.transport import RowsFields, bind_router, is_readable, receive, receive_known

_LOG = logging.getLogger(__name__)

TICK_S = 0.25
PROBE_S = 1.0
LEASE_S = 30.0
"""A requester that says nothing for so long has no session any more."""
TENANT_LIMIT, REMEMBERED_SESSIONS = 64, 1024
FOR_ALL = (Hello, Ping)
"""What, beside rows, a neighbour may say."""
BATCH = 64
"""Messages taken off the socket before others get their turn."""


@dataclass(frozen=True)
class PeerSettings:
    """How a peer runs.

    Attributes:
        bind: where it listens, in ZeroMQ's form.
        name: what it calls itself; empty for host and port.
        threads: intra-op threads of each session; 0 leaves the choice to onnxruntime.
        execution_providers: onnxruntime's names, in order of preference.
        cache_dir: where models are kept; None for the usual place.
        duty_cycle: share of the time in which it may compute.
        parent: process id of the one that must outlive it; None for none.
        pipe: a descriptor whose end means the parent's; None for none.
        keys: folder of keys; with one, it takes encrypted connections only, from holders of the cluster's
            keys. None for plain connections.
    """

    bind: str
    name: str = ""
    threads: int = 0
    execution_providers: Sequence[str] = ("CPUExecutionProvider",)
    cache_dir: Path | None = None
    duty_cycle: float = 1.0
    parent: int | None = None
    pipe: int | None = None
    keys: Path | None = None


class Peer:
    """A provider process. `serve` is its I/O thread; everything that is not said otherwise runs there.

    Raises:
        PortInUseError: the port is taken.
        KeysError: the keys are missing or unusable.
    """

    def __init__(self, settings: PeerSettings) -> None:
        self._lifeline = None if settings.parent is None else Lifeline(settings.parent)
        self._pipe = settings.pipe
        self._context: zmq.Context[Any] = zmq.Context()
        self._guard: Guard | None = None
        try:
            if settings.keys is not None:
                self._guard = Guard(self._context, settings.keys)
            self._router, self.address = bind_router(self._context, settings.bind, self._guard)
        except DistrEdgeError:
            self._context.destroy(linger=0)
            raise
        self.name = settings.name or f"{os.uname().nodename}:{self.address.rpartition(':')[2]}"
        self.rejected = Rejections()
        self._blobs = BlobStore(settings.cache_dir or default_cache_dir(), self.name)
        self._tenants: dict[int, Tenant] = {}
        self._ended: deque[int] = deque(maxlen=REMEMBERED_SESSIONS)
        self._posted: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller = zmq.Poller()
        self._poller.register(self._router, zmq.POLLIN)
        self._poller.register(self._wake, zmq.POLLIN)
        for socket in () if self._guard is None else self._guard.sockets:
            self._poller.register(socket, zmq.POLLIN)
        if self._pipe is not None:
            self._poller.register(self._pipe, zmq.POLLIN)
        self._next_tick_s = self._next_probe_s = 0.0
        self._is_over = False
        self._plans = PlanHost(
            self.name,
            self._context,
            self._poller,
            self,
            self._tenants,
            self._blobs,
            threads=settings.threads,
            execution_providers=settings.execution_providers,
            duty=DutyCycle(settings.duty_cycle),
            guard=self._guard,
        )
        self._handlers: dict[type, Callable[[bytes, Any, Buffer | None], None]] = {
            Hello: self._on_hello,
            Ping: self._on_ping,
            OfferBlob: self._on_offer_blob,
            BlobChunk: self._on_blob_chunk,
            UsePlan: self._on_use_plan,
            RetirePlan: self._on_retire_plan,
            DropFrame: self._on_drop_frame,
            GetTrace: self._on_get_trace,
            Bye: self._on_bye,
            Join: self._on_join,
        }

    # ------------------------------------------------------------------ the loop

    def stop(self) -> None:
        """Lets `serve` return soon. For signal handlers and other threads."""
        self._is_over = True
        os.eventfd_write(self._wake, 1)

    def serve(self) -> None:
        """Works until `stop`, or until the parent ends.

        Raises:
            WedgedError: a computation never ends.
        """
        while not self._is_over:
            ready = dict(self._poller.poll(self._patience_ms()))
            if self._wake in ready:
                os.eventfd_read(self._wake)
            if self._pipe is not None and self._pipe in ready:
                self._is_over = True
            if self._guard is not None:
                self.guarded(self._guard.work)
            for _ in range(BATCH):
                while self._posted:
                    self.guarded(self._posted.popleft())
                if not is_readable(self._router):
                    break
                self.guarded(self._receive)
            now = time.monotonic()
            if now >= self._next_tick_s:
                self._next_tick_s = now + TICK_S
                self._tick(now)
            elif self._plans.neighbours.is_connecting:
                self._plans.neighbours.check(now)

    def close(self) -> None:
        """Ends threads, closes sockets and files."""
        _LOG.info("%s: rejected: %s", self.name, dict(self.rejected) or "nothing")
        self._plans.close()
        for tenant in self._tenants.values():
            tenant.close()
        self._blobs.close()
        if self._guard is not None:
            self._guard.close()
        self._router.close(0)
        self._context.term()
        os.close(self._wake)

    def _patience_ms(self) -> int:
        waiting = [tenant for tenant in self._tenants.values() if tenant.is_waiting]
        for tenant in waiting:
            self.guarded(partial(self._flush, tenant))
        return 1 if waiting else int(1000 * TICK_S)

    def _tick(self, now: float) -> None:
        if self._lifeline is not None and self._lifeline.is_cut():
            self._is_over = True
        self._plans.runner.check_progress(now)
        self._plans.neighbours.check(now)
        probe = now >= self._next_probe_s
        if probe:
            self._next_probe_s = now + PROBE_S
        for tenant in list(self._tenants.values()):
            self._plans.neighbours.check_connections(tenant)
            if now - tenant.heard_s > LEASE_S:
                self._forget(tenant)
            elif probe:
                # Only by sending does a ROUTER find out that a requester has gone.
                self.tell(tenant, Ping(tenant.session, 0))

    # ------------------------------------------------------------------ for everyone here

    def guarded(self, action: Callable[[], None]) -> None:
        """Does something whose errors must not end the peer: what comes from outside may be anything."""
        try:
            action()
        except DistrEdgeError as error:
            self.reject(str(error))
        except Exception:
            _LOG.exception("%s", self.name)

    def reject(self, reason: str) -> None:
        """Counts a message that was not taken."""
        self.rejected.met(reason)
        _LOG.debug("%s: rejected: %s", self.name, reason)

    def post(self, action: Callable[[], None]) -> None:
        """Lets the I/O thread do this, after what was posted before; for other threads."""
        self._posted.append(action)
        os.eventfd_write(self._wake, 1)

    @property
    def has_posted(self) -> bool:
        """Whether something posted is not done yet."""
        return bool(self._posted)

    def tell(self, tenant: Tenant, message: Message, payload: Buffer | None = None) -> None:
        """To a session's requester."""
        self.send(tenant, encode(message), payload)

    def fail(self, tenant: Tenant, text: str, epoch: int = -1) -> None:
        """Tells a session's requester what went wrong, in one line."""
        self.tell(tenant, Failure(tenant.session, epoch, self.name, in_one_line(text)))

    def send(self, tenant: Tenant, header: bytes, payload: Buffer | None) -> None:
        """To a session's requester; if it has gone, the session is over."""
        try:
            tenant.send(self._router, header, payload)
        except zmq.ZMQError:
            self._forget(tenant)

    def _flush(self, tenant: Tenant) -> None:
        try:
            tenant.flush(self._router)
        except zmq.ZMQError:
            self._forget(tenant)

    def _answer(self, identity: bytes, message: Message) -> None:
        """To whoever has just spoken; nothing if they have gone already."""
        try:
            self._router.send(identity, zmq.SNDMORE | zmq.NOBLOCK)
            self._router.send(encode(message), zmq.NOBLOCK)
        except zmq.ZMQError:
            self.reject("who asked has gone")

    # ------------------------------------------------------------------ messages

    def _receive(self) -> None:
        try:
            if self._guard is None:
                user, (sender, message, payload) = "", receive(self._router, routed=True)
            else:
                user, (sender, message, payload) = receive_known(self._router)
        except ProtocolError as error:
            if error.context.get("other_version"):
                self._answer(cast(bytes, error.context["sender"]), self._welcome(0))
            raise
        if type(message) is list:
            if payload is None:
                raise ProtocolError("rows without a payload")
            self._on_rows(sender, message, payload)
            return
        if self._guard is not None and type(message) not in FOR_ALL and not self._guard.may_command(user):
            raise ProtocolError("a host's key is no requester's")
        handler = self._handlers.get(type(message))
        if handler is None:
            raise ProtocolError(f"a peer is not told {cast(Message, message).kind!r}")
        handler(sender, message, payload)

    def _on_rows(self, sender: bytes, fields: RowsFields, payload: Buffer) -> None:
        session, epoch = fields[0], fields[1]
        tenant = self._tenants.get(session)
        hosted = None if tenant is None else tenant.plans.get(epoch)
        if tenant is None or hosted is None:
            verdict = Verdict.UNKNOWN if tenant is None else tenant.epochs.judge(epoch)
            if session not in self._ended and verdict is Verdict.UNKNOWN:
                text = "does not know this session or plan (any more)"
                self._answer(sender, Failure(session, epoch, self.name, text))
            raise ProtocolError(verdict.value)
        if tenant.identity == sender:
            tenant.heard_s = time.monotonic()
        if hosted.is_ready and not hosted.is_over:
            self._plans.runner.take_rows(hosted, fields, payload)
        elif not hosted.is_over:
            self._plans.runner.keep_early(hosted, fields, payload)

    def _welcome(self, session: int) -> Welcome:
        return Welcome(session, self.name, __version__, time.monotonic())

    def _on_hello(self, sender: bytes, message: Hello, payload: Buffer | None) -> None:
        self._answer(sender, self._welcome(message.session))

    def _on_ping(self, sender: bytes, message: Ping, payload: Buffer | None) -> None:
        tenant = self._tenants.get(message.session)
        pong = Pong(message.session, message.number, time.monotonic())
        if tenant is not None and tenant.identity == sender:
            tenant.heard_s = time.monotonic()
            self.tell(tenant, pong, bytes(msgpack.packb(tenant.tallies())))
            if payload is not None:
                tenant.hear(read_reports(payload))
        else:
            self._answer(sender, pong)

    def _on_offer_blob(self, sender: bytes, message: OfferBlob, payload: Buffer | None) -> None:
        tenant = self._tenant(message.session, sender, make=True)
        self._store(tenant, partial(self._blobs.offer, tenant.session, message))

    def _on_blob_chunk(self, sender: bytes, message: BlobChunk, payload: Buffer | None) -> None:
        tenant = self._tenant(message.session, sender)
        if payload is None or not 0 < len(payload) <= CHUNK_BYTES:
            raise ProtocolError("a chunk without a payload, or with too large a one")
        self._store(tenant, partial(self._blobs.chunk, tenant.session, message, payload), len(payload))

    def _on_use_plan(self, sender: bytes, message: UsePlan, payload: Buffer | None) -> None:
        self._plans.use(self._tenant(message.session, sender, make=True), message, payload)

    def _on_retire_plan(self, sender: bytes, message: RetirePlan, payload: Buffer | None) -> None:
        self._plans.retire(self._tenant(message.session, sender), message.epoch)

    def _on_drop_frame(self, sender: bytes, message: DropFrame, payload: Buffer | None) -> None:
        hosted = self._tenant(message.session, sender).plans.get(message.epoch)
        if hosted is not None and hosted.is_ready:
            self._plans.runner.drop_frame(hosted, message.frame)

    def _on_get_trace(self, sender: bytes, message: GetTrace, payload: Buffer | None) -> None:
        tenant = self._tenant(message.session, sender, make=True)
        events = [list(event) for event in tenant.trace]
        tenant.trace.clear()
        self.tell(tenant, Trace(message.session, self.name), bytes(msgpack.packb(events)))

    def _on_bye(self, sender: bytes, message: Bye, payload: Buffer | None) -> None:
        self._forget(self._tenant(message.session, sender))
        # Rows that are still under way need no answer. Those of a session that was lost do.
        self._ended.append(message.session)

    def _on_join(self, sender: bytes, message: Join, payload: Buffer | None) -> None:
        tenant = self._tenants.get(message.session)
        if tenant is not None and tenant.token == message.token and tenant.identity != sender:
            self._forget(tenant)
        tenant = self._tenant(message.session, sender, make=True)
        if tenant.token is None:
            tenant.token = message.token

    # ------------------------------------------------------------------ sessions and blobs

    def _tenant(self, session: int, sender: bytes, *, make: bool = False) -> Tenant:
        """The session, if it is the sender's."""
        tenant = self._tenants.get(session)
        if tenant is None:
            if not make or session in self._ended:
                raise ProtocolError("there is no such session")
            if any(other.identity == sender for other in self._tenants.values()):
                raise ProtocolError("a connection speaks for one session")
            if len(self._tenants) >= TENANT_LIMIT:
                self._answer(sender, Failure(session, -1, self.name, "serves too many sessions already"))
                raise ProtocolError("too many sessions")
            tenant = self._tenants[session] = Tenant(session, sender)
        if tenant.identity != sender:
            raise ProtocolError("the session is another requester's")
        tenant.heard_s = time.monotonic()
        return tenant

    def _forget(self, tenant: Tenant) -> None:
        if self._tenants.pop(tenant.session, None) is None:
            return
        self._plans.forget(tenant)
        self._plans.builder.thread.submit(
            partial(self._store_now, partial(self._blobs.leave, tenant.session))
        )

    def _store(self, tenant: Tenant, action: Callable[[], Replies], size: int = 0) -> None:
        """Something with files: in the preparing thread. Raises as `PlanBuilder.submit`."""
        self._plans.builder.submit(tenant, partial(self._store_now, action), size)

    def _store_now(self, action: Callable[[], Replies]) -> None:
        try:
            replies = action()
        except ProtocolError as error:
            self.post(partial(self.reject, str(error)))
            return
        for session, message in replies:
            self.post(partial(self._reply, session, message))

    def _reply(self, session: int, message: Message) -> None:
        tenant = self._tenants.get(session)
        if tenant is not None:
            self.tell(tenant, message)
