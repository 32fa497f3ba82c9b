"""The two threads of a peer beside its I/O: one computes parts, one builds sessions and writes files."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from distredge.runtime.fair import FairQueue

Job = TypeVar("Job")
_LOG = logging.getLogger(__name__)


class WorkThread(Generic[Job]):
    """Performs jobs one after another.

    Args:
        name: the thread's.
        perform: what to do with a job; it handles its own errors.
        jobs: what order jobs come in; None for that in which they were submitted.
        niceness: how far it stands back for other threads, up to 19.
    """

    def __init__(
        self,
        name: str,
        perform: Callable[[Job], None],
        jobs: FairQueue[Job] | None = None,
        niceness: int = 0,
    ) -> None:
        self._perform, self._niceness = perform, niceness
        self._jobs: queue.SimpleQueue[Job | None] | FairQueue[Job] = jobs or queue.SimpleQueue()
        self._unfinished = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def unfinished(self) -> int:
        """Jobs that are being done or wait."""
        return self._unfinished

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being done or waits."""
        return self._unfinished == 0

    def submit(self, job: Job) -> None:
        """Puts a job behind the others. A job may submit the one that follows it."""
        with self._lock:
            self._unfinished += 1
        self._jobs.put(job)

    def close(self, timeout_s: float = 1.0) -> None:
        """Ends the thread after the job that it is at; waits for that, but not forever."""
        self._jobs.put(None)
        self._thread.join(timeout_s)

    def _work(self) -> None:
        if self._niceness:
            # Of this thread alone, as Linux has it. Another system might mean the process.
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + self._niceness)
        while (job := self._jobs.get()) is not None:
            try:
                self._perform(job)
            except Exception:
                _LOG.exception("%s", self._thread.name)
            # Nothing of the job is kept while the thread waits for the next one: it may hold a whole model.
            del job
            with self._lock:
                self._unfinished -= 1


class DutyCycle:
    """Emulates a slower processor: after a part, the compute unit rests.

    Args:
        share: of the time in which it computes; 1.0 for no rest.
    """

    def __init__(self, share: float = 1.0) -> None:
        self._rest = 1.0 / share - 1.0

    def rest_after(self, busy_s: float) -> None:
        """Sleeps in proportion to the time just spent."""
        if self._rest > 0.0:
            time.sleep(busy_s * self._rest)
