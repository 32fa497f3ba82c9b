"""Decides for peers that are left, in a thread that no frame waits for."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial

from distredge.errors import DistrEdgeError
from distredge.plan.execution import ExecutionPlan
from distredge.protocol.events import Members
from distredge.runtime.compute import WorkThread
from distredge.runtime.deployment import Line
from distredge.runtime.tally import Review

_LOG = logging.getLogger(__name__)

Found = tuple[Line, Members, ExecutionPlan | None]
"""For which line and members, and the plan; None if there is none."""


class PlanFinder:
    """Asks each line's `find`. Answers wait in `found`; its thread starts with the first question."""

    def __init__(self) -> None:
        self.found: deque[Found] = deque()
        self.reviewed: deque[tuple[Line, ExecutionPlan | None]] = deque()
        self._reviewing = False
        self._thread: WorkThread[Callable[[], None]] | None = None

    def ask(self, line: Line, members: Members) -> None:
        """Wants a plan for these members."""
        if line.find is None:
            self.found.append((line, members, None))
            return
        self._submit(partial(self._find, line, members))

    def review(self, line: Line, review: Review) -> None:
        """Wants a line's `review`; nothing, while another one is at it."""
        if not self._reviewing:
            self._reviewing = True
            self._submit(partial(self._review, line, review))

    def _submit(self, job: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = WorkThread("find-plans", lambda job: job())
        self._thread.submit(job)

    def _review(self, line: Line, review: Review) -> None:
        plan: ExecutionPlan | None = None
        try:
            if line.review is not None:
                plan = line.review(review)
        except DistrEdgeError as error:
            _LOG.warning("no better plan: %s", error)
        finally:
            self.reviewed.append((line, plan))
            self._reviewing = False

    def _find(self, line: Line, members: Members) -> None:
        plan: ExecutionPlan | None = None
        try:
            if line.find is not None and members <= line.state.members:
                plan = line.find(members)
        except DistrEdgeError as error:
            _LOG.warning("no plan for peers %s: %s", sorted(members), error)
        finally:
            self.found.append((line, members, plan))

    def close(self) -> None:
        """Ends the thread after what it is at."""
        if self._thread is not None:
            self._thread.close(5.0)
