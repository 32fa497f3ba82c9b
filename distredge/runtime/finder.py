"""Decides for peers that are left, in a thread that no frame waits for."""

from __future__ import annotations

import logging
from collections import deque

from distredge.errors import DistrEdgeError
from distredge.plan.execution import ExecutionPlan
from distredge.protocol.events import Members
from distredge.runtime.compute import WorkThread
from distredge.runtime.deployment import Line

_LOG = logging.getLogger(__name__)

Found = tuple[Line, Members, ExecutionPlan | None]
"""For which line and members, and the plan; None if there is none."""


class PlanFinder:
    """Asks each line's `find`. Answers wait in `found`; its thread starts with the first question."""

    def __init__(self) -> None:
        self.found: deque[Found] = deque()
        self._thread: WorkThread[tuple[Line, Members]] | None = None

    def ask(self, line: Line, members: Members) -> None:
        """Wants a plan for these members."""
        if line.find is None:
            self.found.append((line, members, None))
            return
        if self._thread is None:
            self._thread = WorkThread("find-plans", self._find)
        self._thread.submit((line, members))

    def _find(self, job: tuple[Line, Members]) -> None:
        line, members = job
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
