"""A queue that serves several owners with equal shares of one worker's time."""

from __future__ import annotations

import time
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Job = TypeVar("Job")
OWNERS_KEPT = 64


class FairQueue(Generic[Job]):
    """Of several owners with jobs, the one comes first who has used least time. Who had nothing to do for a
    while has saved nothing up. Of one owner's jobs the lowest rank comes first; equal ranks, as they came.

    One thread takes; the time from one `get` to the next is what the job in between took.

    Args:
        owner: of a job.
        rank: of a job.
        clock: seconds.
    """

    def __init__(
        self,
        owner: Callable[[Job], int],
        rank: Callable[[Job], int],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._owner, self._rank, self._clock = owner, rank, clock
        self._count = count()
        self._arrived: SimpleQueue[Job | None] = SimpleQueue()
        self._waiting: dict[int, list[tuple[int, int, Job]]] = {}
        self._used_s: dict[int, float] = {}
        self._floor_s = 0.0
        self._served: int | None = None
        self._since_s = 0.0
        self._is_ending = False

    def put(self, job: Job | None) -> None:
        """Adds a job; None ends the queue. For any thread."""
        self._arrived.put(job)

    def get(self) -> Job | None:
        """The next job, as soon as there is one; None at the end."""
        if self._served is not None:
            self._used_s[self._served] += self._clock() - self._since_s
            self._served = None
        self._sort()
        while not self._waiting:
            if self._is_ending:
                return None
            self._add(self._arrived.get())
        owner = min(self._waiting, key=self._used_s.__getitem__)
        jobs = self._waiting[owner]
        _, _, job = heappop(jobs)
        if not jobs:
            del self._waiting[owner]
        self._floor_s = max(self._floor_s, self._used_s[owner])
        self._served, self._since_s = owner, self._clock()
        return job

    def _sort(self) -> None:
        while not self._arrived.empty():
            try:
                self._add(self._arrived.get_nowait())
            except Empty:
                return

    def _add(self, job: Job | None) -> None:
        if job is None:
            self._is_ending = True
            return
        owner = self._owner(job)
        if owner not in self._waiting:
            self._waiting[owner] = []
            self._used_s[owner] = max(self._floor_s, self._used_s.get(owner, 0.0))
            if len(self._used_s) > OWNERS_KEPT:
                self._used_s = {each: self._used_s[each] for each in self._waiting}
        heappush(self._waiting[owner], (self._rank(job), next(self._count), job))
