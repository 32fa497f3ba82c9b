"""From a plan's bytes to warm sessions, in a thread of its own."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial

from distredge.errors import DistrEdgeError, ProtocolError
from distredge.plan.execution import ExecutionPlan
from distredge.plan.serde import from_plain
from distredge.protocol.messages import Buffer, unpack
from distredge.runtime.arena import shrink_arena
from distredge.runtime.blobs import BlobStore
from distredge.runtime.compute import WorkThread
from distredge.runtime.engine import PartSessions
from distredge.runtime.hosted import HostedPlan
from distredge.runtime.mailroom import Mailroom, fail_plan
from distredge.runtime.tenant import Tenant

PREPARE_BYTES, PREPARE_JOBS = 128 * 1024 * 1024, 4096
"""Of one session, and of all: what may wait for the preparing thread. Honest requesters send two blobs at
once, a window of each."""

NICENESS = 15
"""Building stands back for frames under way: where both want one core, it gets a thirtieth of it."""


class PlanBuilder:
    """The preparing thread, and the engine's sessions that it builds.

    Args:
        mail: the I/O thread.
        blobs: used in the preparing thread only.
        built: told in the I/O thread of each plan that is built.
        limit_bytes: of a frame's rows and results.
        threads, execution_providers: of the inference engine.
    """

    def __init__(
        self,
        mail: Mailroom,
        blobs: BlobStore,
        built: Callable[[Tenant, HostedPlan], None],
        limit_bytes: int,
        *,
        threads: int,
        execution_providers: Sequence[str],
    ) -> None:
        self._mail, self._blobs, self._told, self._limit_bytes = mail, blobs, built, limit_bytes
        self._threads, self._execution_providers = threads, tuple(execution_providers)
        self._sessions: dict[str, PartSessions] = {}
        self.thread: WorkThread[Callable[[], None]] = WorkThread(
            "prepare", lambda job: job(), niceness=NICENESS
        )

    def close(self) -> None:
        """Ends the thread."""
        self.thread.close()

    def submit(self, tenant: Tenant, job: Callable[[], None], size: int = 0) -> None:
        """Lets the preparing thread do something for a session, which has sent `size` bytes for it.

        Raises:
            ProtocolError: too much waits for that already.
        """
        if tenant.queued_bytes + size > PREPARE_BYTES or self.thread.unfinished >= PREPARE_JOBS:
            raise ProtocolError("more was sent than can be prepared")
        tenant.queued_bytes += size
        self.thread.submit(partial(self._do, tenant, job, size))

    def build(self, tenant: Tenant, hosted: HostedPlan, payload: Buffer) -> None:
        """Builds a plan in the preparing thread. Raises as `submit`."""
        self.submit(tenant, partial(self._build, tenant, hosted, payload), len(payload))

    def free(self, plans: Callable[[], Iterable[HostedPlan]]) -> None:
        """Frees all sessions that none of these plans needs, which are asked for when none is being built."""
        self.thread.submit(partial(self._free, plans))

    def _do(self, tenant: Tenant, job: Callable[[], None], size: int) -> None:
        try:
            job()
        finally:
            self._mail.post(partial(tenant.prepared, size))

    def _build(self, tenant: Tenant, hosted: HostedPlan, payload: Buffer) -> None:
        if hosted.is_over:
            return
        try:
            plan = from_plain(ExecutionPlan, unpack(payload))
            plan.validate()
            if not 0 <= hosted.device < len(plan.devices) == len(hosted.addresses):
                raise ProtocolError("the plan does not fit its devices")
            hosted.build(plan, self._part_sessions(plan), self._limit_bytes)
        except Exception as error:
            kind = "" if isinstance(error, DistrEdgeError) else f"{type(error).__name__}: "
            text = f"cannot use the plan: {kind}{error}"
            self._mail.post(partial(fail_plan, self._mail, tenant, hosted, text))
        else:
            self._mail.post(partial(self._told, tenant, hosted))

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

    def _free(self, plans: Callable[[], Iterable[HostedPlan]]) -> None:
        used: dict[str, set[str]] = {}
        for hosted in plans():
            if hosted.is_built:
                used.setdefault(hosted.plan.graph, set()).update(hosted.parts)
        self._sessions = {graph: kept for graph, kept in self._sessions.items() if graph in used}
        for graph, sessions in self._sessions.items():
            sessions.keep_only(used[graph])
        if not self._sessions:
            shrink_arena()
        # A C library keeps what it freed for itself. (Another than glibc has no such function.)
        with suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
