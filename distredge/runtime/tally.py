"""What parts and transfers of one plan take on one peer: counted as they happen, told with signs of life."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from distredge.plan.execution import ExecutionPlan
from distredge.plan.serde import from_plain
from distredge.plan.strategy import Strategy
from distredge.protocol.events import Members
from distredge.protocol.messages import Buffer, unpack

Run = tuple[int, int, float]
"""Task, how often, seconds in all."""
Arrival = tuple[int, float]
"""Transfer, and the fastest one's seconds from the sender's clock to the receiver's."""


class Tally:
    """Of one plan, since it was last taken. Any thread may add."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[int, tuple[int, float]] = {}
        self._arrivals: dict[int, float] = {}

    def ran(self, task: int, seconds: float) -> None:
        """A part was computed."""
        with self._lock:
            count, total = self._runs.get(task, (0, 0.0))
            self._runs[task] = count + 1, total + seconds

    def arrived(self, transfer: int, seconds: float) -> None:
        """Rows arrived, so long after they were sent (by two clocks)."""
        with self._lock:
            before = self._arrivals.get(transfer)
            if before is None or seconds < before:
                self._arrivals[transfer] = seconds

    def take(self) -> tuple[list[Run], list[Arrival]]:
        """Everything since the last time."""
        with self._lock:
            runs, self._runs = self._runs, {}
            arrivals, self._arrivals = self._arrivals, {}
        return [(task, count, s) for task, (count, s) in runs.items()], list(arrivals.items())


@dataclass(frozen=True, slots=True)
class TallyReport:
    """A peer's tally of one epoch, as the wire carries it."""

    epoch: int
    runs: tuple[Run, ...]
    arrivals: tuple[Arrival, ...]


def read_reports(payload: Buffer) -> list[TallyReport]:
    """The reports in the payload of a Pong.

    Raises:
        ProtocolError: there are none.
    """
    return [from_plain(TallyReport, report) for report in from_plain(list, unpack(payload))]


@dataclass(frozen=True)
class Review:
    """What the plan in use took, over a second or so.

    Attributes:
        plan: the plan.
        members: peers that live.
        runs: by task: how often, and seconds in all.
        transit_s: by transfer: seconds of the fastest, from handing it to the sender's socket until it was
            received, as far as clocks agree.
        in_flight: frames open at the end.
        beside: the same of the plans beside it, which frames were dealt to.
    """

    plan: ExecutionPlan
    members: Members
    runs: Mapping[int, tuple[int, float]]
    transit_s: Mapping[int, float]
    in_flight: int
    beside: tuple[Review, ...] = ()

    @property
    def strategy(self) -> Strategy:
        """What is in use, with what is beside it."""
        return Strategy.dealt([review.plan.strategy for review in (self, *self.beside)])


@dataclass
class Measured:
    """What peers have told of one plan since the last review."""

    runs: dict[int, tuple[int, float]] = field(default_factory=dict)
    transit_s: dict[int, float] = field(default_factory=dict)

    def ran(self, task: int, count: int, seconds: float) -> None:
        """A task was run so often, in so many seconds in all."""
        before, total = self.runs.get(task, (0, 0.0))
        self.runs[task] = before + count, total + seconds

    def arrived(self, transfer: int, seconds: float) -> None:
        """A transfer took so long; the fastest counts."""
        self.transit_s[transfer] = min(seconds, self.transit_s.get(transfer, seconds))
