"""Frames under the plans of one peer: rows come, parts are computed, rows go."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from math import inf

from distredge.errors import ProtocolError, WedgedError
from distredge.plan.execution import REQUESTER
from distredge.protocol.events import ForgetFrame, Instruction, RejectRows, RunPart, SendRows
from distredge.protocol.messages import Buffer, FrameFailed
from distredge.runtime.compute import WorkThread
from distredge.runtime.fair import FairQueue
from distredge.runtime.hosted import HostedPlan
from distredge.runtime.link import WAITING_BYTES
from distredge.runtime.mailroom import Mailroom, fail_plan, in_one_line
from distredge.runtime.tenant import Tenant
from distredge.runtime.trace import TraceEvent
from distredge.runtime.transport import RowsFields, rows_header, size_of

_LOG = logging.getLogger(__name__)

WEDGED_S, WEDGED_TIMES, WEDGED_FIRST_S = 15.0, 50.0, 300.0
"""A part that takes so many seconds and so many times as long as it has taken before will never end; nor
will one that takes so long when it has never been run."""
LOOK_S = 1.0
"""At most so much counts from one look at the compute thread to the next: a process that was stopped for a
while is none the worse for it."""


class FrameRunner:
    """The compute thread, and what becomes of the rows. In the I/O thread where nothing else is said.

    Args:
        name: the peer's.
        mail: the I/O thread.
        tenants: all sessions by their number.
        lose: told of a neighbour, by session, address and reason, that does not take its rows.
        limit_bytes: rows kept for frames under way, at most; half of that for one session.
    """

    def __init__(
        self,
        name: str,
        mail: Mailroom,
        tenants: dict[int, Tenant],
        lose: Callable[[Tenant, str, str], None],
        limit_bytes: int,
    ) -> None:
        self._name, self._mail, self._tenants, self._lose = name, mail, tenants, lose
        self.kept_bytes, self.limit_bytes = 0, limit_bytes
        # A session's oldest frame comes first, whatever its plan: those under a new plan hold up none
        # that began before.
        jobs = FairQueue[tuple[HostedPlan, RunPart]](lambda job: job[0].session, lambda job: job[1].frame)
        self._compute = WorkThread("compute", self._compute_part, jobs)
        self._computing: tuple[HostedPlan, RunPart] | None = None
        self._looked_at: tuple[HostedPlan, RunPart] | None = None
        self._looked_s = self._computing_s = 0.0

    def close(self) -> None:
        """Ends the thread."""
        self._compute.close()

    # ------------------------------------------------------------------ rows that are kept

    def take_rows(self, hosted: HostedPlan, fields: RowsFields, payload: Buffer) -> None:
        """Rows of a plan that is ready.

        Raises:
            ProtocolError: they are not what the plan says, or too many are kept already.
        """
        self._admit(hosted, payload)
        kept = hosted.kept_bytes
        instructions = hosted.rows_arrived(fields, payload)
        self.kept_bytes += hosted.kept_bytes - kept
        self._perform(hosted, instructions)

    def keep_early(self, hosted: HostedPlan, fields: RowsFields, payload: Buffer) -> None:
        """Rows of a plan that is being prepared. Raises as `take_rows`."""
        self._admit(hosted, payload)
        hosted.keep_early(fields, payload)
        self.kept_bytes += size_of(payload)

    def take_early(self, hosted: HostedPlan) -> None:
        """A plan has become ready: what was kept for it comes now."""
        kept = hosted.kept_bytes
        early = hosted.take_early()
        self.kept_bytes += hosted.kept_bytes - kept
        for fields, payload in early:
            self._mail.guarded(partial(self.take_rows, hosted, fields, payload))

    def _admit(self, hosted: HostedPlan, payload: Buffer) -> None:
        size = size_of(payload)
        if self.kept_bytes + size <= self.limit_bytes // 2:
            return
        plans = self._tenants[hosted.session].plans.values()
        of_session = sum(plan.kept_bytes for plan in plans)
        if of_session + size > self.limit_bytes // 2 or self.kept_bytes + size > self.limit_bytes:
            text = (
                f"keeps {of_session / 1e6:.0f} MB of rows already, which is the limit; fewer frames at once"
            )
            self._fail(hosted, text)
            raise ProtocolError("too many rows are kept")

    def let_go(self, hosted: HostedPlan) -> None:
        """Nothing is kept for this plan any more."""
        hosted.is_over = True
        self.kept_bytes -= hosted.kept_bytes

    def drop_frame(self, hosted: HostedPlan, frame: int) -> None:
        """A frame is given up."""
        # Behind whatever the compute thread has asked for: that may still send rows of this frame.
        self._mail.post(partial(self._perform, hosted, hosted.drop(frame)))

    # ------------------------------------------------------------------ instructions

    def _perform(self, hosted: HostedPlan, instructions: list[Instruction]) -> None:
        try:
            self._perform_all(hosted, instructions)
        except Exception as error:
            # A frame that nobody works on would keep its requester waiting for ever.
            _LOG.exception("%s", self._name)
            self._fail(hosted, f"cannot go on: {type(error).__name__}: {error}")

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
                        self.kept_bytes += hosted.kept_bytes - kept
                    case RejectRows(_, _, reason):
                        self._mail.reject(reason)
            instructions = following

    def _run_part(self, hosted: HostedPlan, frame: int, task: int) -> list[Instruction]:
        """In either thread: computes; returns what to do next, which after a failure is nothing."""
        try:
            hosted.run(frame, task)
        except Exception as error:
            if isinstance(error, ProtocolError):
                self._mail.post(partial(self._mail.reject, str(error)))
            text = f"cannot compute task {task} of the plan: {error}"
            self._mail.post(partial(self._give_up, hosted, frame, task, text))
            return []
        return hosted.finished(frame, task)

    def _give_up(self, hosted: HostedPlan, frame: int, task: int, text: str) -> None:
        """A frame's data is not what a part can compute; other frames go on."""
        tenant = self._tenants.get(hosted.session)
        if tenant is None or hosted.is_over:
            return
        failed = FrameFailed(hosted.session, hosted.epoch, frame, self._name, in_one_line(text))
        self._mail.tell(tenant, failed)
        self._perform(hosted, [*hosted.drop(frame), *hosted.finished(frame, task)])

    def _compute_part(self, job: tuple[HostedPlan, RunPart]) -> None:
        """In the compute thread. The next part begins at once; everything else is the I/O thread's."""
        hosted, part = job
        if hosted.is_over:
            return
        self._computing = job
        instructions = self._run_part(hosted, part.frame, part.task)
        self._computing = None
        if instructions and isinstance(last := instructions[-1], RunPart):
            self._compute.submit((hosted, last))
            instructions.pop()
        if instructions:
            self._mail.post(partial(self._perform, hosted, instructions))

    def check_progress(self, now: float) -> None:
        """Looks at the compute thread; to be called several times a second.

        Raises:
            WedgedError: a part will never end. Nothing can end a thread inside the engine but the process.
        """
        job, since_s = self._computing, now - self._looked_s
        self._looked_s = now
        if job is None or job is not self._looked_at:
            self._looked_at, self._computing_s = job, 0.0
            return
        self._computing_s += min(since_s, LOOK_S)
        hosted, part = job
        usual_s = hosted.usual_s(part.task)
        limit_s = WEDGED_FIRST_S if usual_s == inf else max(WEDGED_S, WEDGED_TIMES * usual_s)
        if self._computing_s > limit_s:
            raise WedgedError(
                f"{self._name} has computed one part for {self._computing_s:.0f} s and will not get further; "
                "it ends, so that whoever started it starts it again"
            )

    def _fail(self, hosted: HostedPlan, text: str) -> None:
        tenant = self._tenants.get(hosted.session)
        if tenant is not None:
            fail_plan(self._mail, tenant, hosted, text)

    def _send_rows(self, hosted: HostedPlan, frame: int, transfer: int) -> None:
        target, fields = hosted.route(transfer)
        coding, payload = hosted.coded(frame, transfer)
        start = time.monotonic()
        header = rows_header(hosted.session, hosted.epoch, frame, *fields, start, coding=coding)
        tenant = self._tenants[hosted.session]
        if target == REQUESTER:
            self._mail.send(tenant, header, payload)
        else:
            link = tenant.links.get(hosted.addresses[target])
            if link is None:  # lost; the plan is over
                return
            link.send(header, payload)
            if link.waiting_bytes > WAITING_BYTES:
                self._lose(tenant, link.address, "cannot send its rows to")
        hosted.trace.append(TraceEvent("send", frame, transfer, start, time.monotonic(), size_of(payload)))
