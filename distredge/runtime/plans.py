"""What a peer does with plans: build them, find their neighbours, run their frames, free them."""

from __future__ import annotations

import ctypes
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import zmq

from distredge import __version__
from distredge.errors import DistrEdgeError, KeysError, ProtocolError
from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.plan.serde import from_plain
from distredge.protocol.epochs import Verdict
from distredge.protocol.events import ForgetFrame, Instruction, RejectRows, RunPart, SendRows
from distredge.protocol.messages import (
    PLAN_LIMIT,
    Buffer,
    Failure,
    LostNeighbour,
    Message,
    PlanReady,
    UsePlan,
    Welcome,
    unpack,
)
from distredge.runtime.blobs import BlobStore
from distredge.runtime.compute import DutyCycle, WorkThread
from distredge.runtime.engine import PartSessions, to_payload
from distredge.runtime.fair import FairQueue
from distredge.runtime.guard import Guard
from distredge.runtime.hosted import HostedPlan
from distredge.runtime.link import WAITING_BYTES, Link
from distredge.runtime.tenant import Tenant
from distredge.runtime.trace import TraceEvent
from distredge.runtime.transport import (
    RowsFields,
    is_loopback,
    is_readable,
    receive,
    rows_header,
    size_of,
    tcp_address,
)

_LOG = logging.getLogger(__name__)

PREPARE_BYTES, PREPARE_JOBS = 128 * 1024 * 1024, 4096
"""Of one session, and of all: what may wait for the preparing thread. Honest requesters send two blobs at
once, a window of each."""
KEPT_SHARE = 0.5
"""Of the machine's memory: rows kept for frames under way, at most; half of that for one session."""
NEIGHBOUR_S = 5.0
"""How long a peer waits for its neighbours to answer before it says that they do not."""
PLANS_LIMIT = 64


class Mailroom(Protocol):
    """What plans need of the peer's I/O thread."""

    def send(self, tenant: Tenant, header: bytes, payload: Buffer | None) -> None:
        """To a session's requester."""
        ...

    def tell(self, tenant: Tenant, message: Message, payload: Buffer | None = None) -> None:
        """Encodes and sends."""
        ...

    def reject(self, reason: str) -> None:
        """Counts a message that nobody asked for."""
        ...

    def guarded(self, action: Callable[[], None]) -> None:
        """Does something whose errors must not end the peer."""
        ...

    def post(self, action: Callable[[], None]) -> None:
        """Lets the I/O thread do this, after what was posted before; for other threads."""
        ...

    @property
    def has_posted(self) -> bool:
        """Whether something posted is not done yet."""
        ...


@dataclass
class _Connecting:
    """A plan that is built and waits for its neighbours' welcome."""

    tenant: Tenant
    hosted: HostedPlan
    links: list[Link] = field(default_factory=list)
    deadline_s: float = 0.0


class PlanHost:
    """Everything that a peer does with plans. In the I/O thread where nothing else is said.

    Args:
        name: the peer's.
        context, poller: of the I/O thread.
        mail: the I/O thread.
        tenants: all sessions by their number.
        blobs: used in the preparing thread only.
        threads, execution_providers: of the inference engine.
        duty: the rest that the compute unit takes after each part.
        guard: who knows the cluster's keys; None where connections are plain.
    """

    def __init__(
        self,
        name: str,
        context: zmq.Context[Any],
        poller: zmq.Poller,
        mail: Mailroom,
        tenants: dict[int, Tenant],
        blobs: BlobStore,
        *,
        threads: int,
        execution_providers: Sequence[str],
        duty: DutyCycle,
        guard: Guard | None = None,
    ) -> None:
        self._guard = guard
        self._name, self._context, self._poller, self._mail = name, context, poller, mail
        self._tenants, self._blobs, self._duty = tenants, blobs, duty
        self._threads, self._execution_providers = threads, tuple(execution_providers)
        self._sessions: dict[str, PartSessions] = {}
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._kept_bytes, self._kept_limit = 0, int(memory * KEPT_SHARE)
        self._connecting: list[_Connecting] = []
        self._watched: set[Link] = set()
        self._compute: WorkThread[tuple[HostedPlan, RunPart]] = WorkThread(
            "compute", self._compute_part, FairQueue(lambda job: job[0].session)
        )
        self.preparing: WorkThread[Callable[[], None]] = WorkThread("prepare", lambda job: job())

    def close(self) -> None:
        """Ends the threads."""
        self._compute.close()
        self.preparing.close()

    # ------------------------------------------------------------------ preparing

    def use(self, tenant: Tenant, message: UsePlan, payload: Buffer | None) -> None:
        """Starts to prepare a plan.

        Raises:
            ProtocolError: it cannot be a plan, or is one too many.
        """
        if tenant.epochs.judge(message.epoch) is not Verdict.UNKNOWN:
            raise ProtocolError("an epoch was announced twice")
        if payload is None or len(payload) > PLAN_LIMIT:
            raise ProtocolError("a plan's size is not acceptable")
        if len(tenant.plans) >= PLANS_LIMIT:
            raise ProtocolError("too many plans")
        # They come from the network, and ZeroMQ has more kinds of addresses than a peer may use.
        addresses = [tcp_address(address) for address in message.addresses]
        if len(message.keys) != len(addresses):
            raise ProtocolError("a plan names not as many keys as addresses")
        hosted = HostedPlan(
            message.session, message.epoch, message.device, addresses, message.keys, tenant.trace, self._duty
        )
        self.prepare(tenant, partial(self._build, tenant, hosted, payload), len(payload))
        tenant.epochs.announce(message.epoch, hosted)

    def prepare(self, tenant: Tenant, job: Callable[[], None], size: int = 0) -> None:
        """Lets the preparing thread do something for a session, which has sent `size` bytes for it.

        Raises:
            ProtocolError: too much waits for that already.
        """
        if tenant.queued_bytes + size > PREPARE_BYTES or self.preparing.unfinished >= PREPARE_JOBS:
            raise ProtocolError("more was sent than can be prepared")
        tenant.queued_bytes += size
        self.preparing.submit(partial(self._prepare_now, tenant, job, size))

    def _prepare_now(self, tenant: Tenant, job: Callable[[], None], size: int) -> None:
        try:
            job()
        finally:
            self._mail.post(partial(tenant.prepared, size))

    def _build(self, tenant: Tenant, hosted: HostedPlan, payload: Buffer) -> None:
        """In the preparing thread: from a plan's bytes to warm sessions."""
        if hosted.is_over:
            return
        try:
            plan = from_plain(ExecutionPlan, unpack(payload))
            plan.validate()
            if not 0 <= hosted.device < len(plan.devices) == len(hosted.addresses):
                raise ProtocolError("the plan does not fit its devices")
            hosted.build(plan, self._part_sessions(plan), self._kept_limit // 2)
        except DistrEdgeError as error:
            self._mail.post(partial(self._fail_plan, tenant, hosted, f"cannot use the plan: {error}"))
        except Exception as error:
            text = f"cannot use the plan: {type(error).__name__}: {error}"
            self._mail.post(partial(self._fail_plan, tenant, hosted, text))
        else:
            self._mail.post(partial(self._built, tenant, hosted))

    def _part_sessions(self, plan: ExecutionPlan) -> PartSessions:
        sessions = self._sessions.get(plan.graph)
        if sessions is None:
            for blob in (plan.model, plan.graph):
                if not self._blobs.has(blob):
                    raise ProtocolError("the plan's model was not sent before it")
            sessions = self._sessions[plan.graph] = PartSessions(
                self._blobs.path(plan.graph).read_bytes(),
                self._blobs.folder,
                threads=self._threads,
                execution_providers=self._execution_providers,
            )
        return sessions

    def _built(self, tenant: Tenant, hosted: HostedPlan) -> None:
        if hosted.is_over:
            return
        self.check_connections(tenant)
        waiting = _Connecting(tenant, hosted, deadline_s=time.monotonic() + NEIGHBOUR_S)
        try:
            for device in sorted(hosted.neighbours):
                waiting.links.append(self._connect(tenant, hosted, device))
        except (DistrEdgeError, zmq.ZMQError) as error:
            self._fail_plan(tenant, hosted, f"cannot reach its neighbours: {error}")
            return
        self._connecting.append(waiting)
        self.check_neighbours(time.monotonic())

    def _connect(self, tenant: Tenant, hosted: HostedPlan, device: int) -> Link:
        name, address, key = hosted.plan.devices[device], hosted.addresses[device], hosted.keys[device]
        if self._guard is None:
            if key:
                raise KeysError(f"{name} wants encryption, and this peer was started without keys")
        elif not (self._guard.allows(key) if key else is_loopback(address)):
            raise KeysError(f"{name} at {address} has no key of this cluster; run `fab deploy`")
        own = None if self._guard is None else self._guard.pair
        link = tenant.connect(self._context, name, address, self._name, own, key)
        if not link.welcomed and link not in self._watched:
            self._watched.add(link)
            self._poller.register(link.socket, zmq.POLLIN)
        return link

    @property
    def is_connecting(self) -> bool:
        """Whether a plan waits for its neighbours' welcome."""
        return bool(self._connecting)

    def check_neighbours(self, now: float) -> None:
        """Hears what neighbours say, and tells which plans are ready by that."""
        for tenant in list(self._tenants.values()):
            for link in list(tenant.links.values()):
                while not link.socket.closed and is_readable(link.socket):
                    self._mail.guarded(partial(self._hear_neighbour, tenant, link))
        for waiting in list(self._connecting):
            missing = [link for link in waiting.links if not link.welcomed]
            if waiting.hosted.is_over:
                self._connecting.remove(waiting)
            elif not missing:
                self._connecting.remove(waiting)
                self._ready(waiting.tenant, waiting.hosted)
            elif now > waiting.deadline_s:
                self._connecting.remove(waiting)
                self._lost_neighbour(waiting.tenant, missing[0].address, "cannot reach")

    def _hear_neighbour(self, tenant: Tenant, link: Link) -> None:
        _, message, _ = receive(link.socket, routed=False)
        if isinstance(message, Welcome) and not link.welcomed:
            if message.version != __version__:
                self.fail(tenant, f"runs DistrEdge {__version__}, but {link.name} runs {message.version}")
                return
            link.welcomed = True
            self._unwatch(link)
        elif isinstance(message, Failure) and message.epoch in tenant.plans:
            hosted = tenant.plans[message.epoch]
            self._complain(tenant, hosted, link.address, f"sent rows to {link.name}, which {message.text}")

    def check_connections(self, tenant: Tenant) -> None:
        """Tells the requester of neighbours whose connections were lost."""
        for address, link in list(tenant.links.items()):
            if link.is_broken():
                self._lost_neighbour(tenant, address, "lost its connection to")

    def _lost_neighbour(self, tenant: Tenant, address: str, what: str) -> None:
        link = tenant.links[address]
        self._unwatch(link)
        text = f"{what} {link.name} at {address}" + (f", which {link.complaint}" if link.complaint else "")
        for hosted in tenant.cut(address):
            self._complain(tenant, hosted, address, text)

    def _complain(self, tenant: Tenant, hosted: HostedPlan, address: str, text: str) -> None:
        """Leaves the judgement to the requester."""
        device = hosted.addresses.index(address)
        self._mail.tell(tenant, LostNeighbour(tenant.session, hosted.epoch, device, text))

    def _unwatch(self, link: Link) -> None:
        if link in self._watched:
            self._watched.remove(link)
            self._poller.unregister(link.socket)

    def _ready(self, tenant: Tenant, hosted: HostedPlan) -> None:
        hosted.is_ready = True
        self._mail.tell(tenant, PlanReady(hosted.session, hosted.epoch, hosted.device))
        kept = hosted.kept_bytes
        early = hosted.take_early()
        self._kept_bytes += hosted.kept_bytes - kept
        for fields, payload in early:
            self._mail.guarded(partial(self.take_rows, hosted, fields, payload))

    # ------------------------------------------------------------------ ending

    def retire(self, tenant: Tenant, epoch: int) -> None:
        """Forgets a plan.

        Raises:
            ProtocolError: there is none.
        """
        self._let_go(tenant.epochs.retire(epoch))
        for link in tenant.unused_links():  # with whatever waits in their queues
            self._unwatch(link)
            tenant.cut(link.address)
        self.preparing.submit(self._free_sessions)

    def forget(self, tenant: Tenant) -> None:
        """Forgets all plans of a session, and its connections."""
        for link in tenant.links.values():
            self._unwatch(link)
        for hosted in tenant.plans.values():
            self._let_go(hosted)
        tenant.close()
        self._connecting = [waiting for waiting in self._connecting if waiting.tenant is not tenant]
        self.preparing.submit(self._free_sessions)

    def _free_sessions(self) -> None:
        """In the preparing thread, so that none is being built: keeps only what a plan uses."""
        used: dict[str, set[str]] = {}
        for tenant in list(self._tenants.values()):
            for hosted in list(tenant.plans.values()):
                if hosted.is_built:
                    used.setdefault(hosted.plan.graph, set()).update(hosted.parts)
        self._sessions = {graph: kept for graph, kept in self._sessions.items() if graph in used}
        for graph, sessions in self._sessions.items():
            sessions.keep_only(used[graph])
        # A C library keeps what it freed for itself. (Another than glibc has no such function.)
        with suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)

    def _fail_plan(self, tenant: Tenant, hosted: HostedPlan, text: str) -> None:
        if not hosted.is_over:
            hosted.is_over = True
            self.fail(tenant, text, hosted.epoch)

    def fail(self, tenant: Tenant, text: str, epoch: int = -1) -> None:
        """Tells a session's requester what went wrong, in one line."""
        self._mail.tell(tenant, Failure(tenant.session, epoch, self._name, " ".join(text.split())[:1000]))

    # ------------------------------------------------------------------ running

    def take_rows(self, hosted: HostedPlan, fields: RowsFields, payload: Buffer) -> None:
        """Rows of a plan that is ready.

        Raises:
            ProtocolError: they are not what the plan says, or too many are kept already.
        """
        self._admit(hosted, payload)
        kept = hosted.kept_bytes
        instructions = hosted.rows_arrived(fields, payload)
        self._kept_bytes += hosted.kept_bytes - kept
        self._perform(hosted, instructions)

    def keep_early(self, hosted: HostedPlan, fields: RowsFields, payload: Buffer) -> None:
        """Rows of a plan that is being prepared. Raises as `take_rows`."""
        self._admit(hosted, payload)
        hosted.keep_early(fields, payload)
        self._kept_bytes += size_of(payload)

    def _admit(self, hosted: HostedPlan, payload: Buffer) -> None:
        size = size_of(payload)
        if self._kept_bytes + size <= self._kept_limit // 2:
            return
        plans = self._tenants[hosted.session].plans.values()
        of_session = sum(plan.kept_bytes for plan in plans)
        if of_session + size > self._kept_limit // 2 or self._kept_bytes + size > self._kept_limit:
            text = (
                f"keeps {of_session / 1e6:.0f} MB of rows already, which is the limit; fewer frames at once"
            )
            self._fail_running(hosted, text)
            raise ProtocolError("too many rows are kept")

    def _let_go(self, hosted: HostedPlan) -> None:
        """Nothing is kept for this plan any more."""
        hosted.is_over = True
        self._kept_bytes -= hosted.kept_bytes

    def drop_frame(self, hosted: HostedPlan, frame: int) -> None:
        """A frame is given up."""
        # Behind whatever the compute thread has asked for: that may still send rows of this frame.
        self._mail.post(partial(self._perform, hosted, hosted.drop(frame)))

    def _perform(self, hosted: HostedPlan, instructions: list[Instruction]) -> None:
        try:
            self._perform_all(hosted, instructions)
        except Exception as error:
            # A frame that nobody works on would keep its requester waiting for ever.
            _LOG.exception("%s", self._name)
            self._fail_running(hosted, f"cannot go on: {type(error).__name__}: {error}")

    def _perform_all(self, hosted: HostedPlan, instructions: list[Instruction]) -> None:
        # A chain of quick parts runs here, one after another; `instructions` then holds the latest ones.
        while instructions:
            following: list[Instruction] = []
            for instruction in instructions:
                if hosted.is_over:
                    return
                match instruction:
                    case SendRows(frame, transfer):
                        self._send_rows(hosted, frame, transfer)
                    case RunPart(frame, task):
                        # Nor may it overtake what the compute thread has asked for: it may free the frame.
                        if hosted.is_quick(task) and self._compute.is_idle and not self._mail.has_posted:
                            following = self._run_part(hosted, frame, task)
                        else:
                            self._compute.submit((hosted, instruction))
                    case ForgetFrame(frame):
                        kept = hosted.kept_bytes
                        hosted.forget(frame)
                        self._kept_bytes += hosted.kept_bytes - kept
                    case RejectRows(_, _, reason):
                        self._mail.reject(reason)
            instructions = following

    def _run_part(self, hosted: HostedPlan, frame: int, task: int) -> list[Instruction]:
        """In either thread: computes; returns what to do next, which after a failure is nothing."""
        try:
            hosted.run(frame, task)
        except Exception as error:
            text = f"cannot compute task {task} of the plan: {error}"
            self._mail.post(partial(self._fail_running, hosted, text))
            return []
        return hosted.finished(frame, task)

    def _compute_part(self, job: tuple[HostedPlan, RunPart]) -> None:
        """In the compute thread. The next part begins at once; everything else is the I/O thread's."""
        hosted, part = job
        if hosted.is_over:
            return
        instructions = self._run_part(hosted, part.frame, part.task)
        if instructions and isinstance(last := instructions[-1], RunPart):
            self._compute.submit((hosted, last))
            instructions.pop()
        if instructions:
            self._mail.post(partial(self._perform, hosted, instructions))

    def _fail_running(self, hosted: HostedPlan, text: str) -> None:
        tenant = self._tenants.get(hosted.session)
        if tenant is not None:
            self._fail_plan(tenant, hosted, text)

    def _send_rows(self, hosted: HostedPlan, frame: int, transfer: int) -> None:
        target, fields = hosted.route(transfer)
        array = hosted.store.rows_to_send(frame, transfer)
        start = time.monotonic()
        header = rows_header(hosted.session, hosted.epoch, frame, *fields, start)
        tenant = self._tenants[hosted.session]
        if target == REQUESTER:
            self._mail.send(tenant, header, to_payload(array))
        else:
            link = tenant.links.get(hosted.addresses[target])
            if link is None:  # lost; the plan is over
                return
            link.send(header, to_payload(array))
            if link.waiting_bytes > WAITING_BYTES:
                self._lost_neighbour(tenant, link.address, "cannot send its rows to")
        hosted.trace.append(TraceEvent("send", frame, transfer, start, time.monotonic(), array.nbytes))
