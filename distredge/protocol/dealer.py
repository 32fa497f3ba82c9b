"""Which way each whole frame goes, where a stream may take several: the one that will be done first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

WEIGHT = 0.2
"""Of what was seen last, in a way's seconds per frame; more while few frames were seen."""
COLD = 1
"""Frames of a way that tell nothing of its speed: the first one runs in sessions that never ran before."""
RETRY = 30.0
"""A way that lies idle for so many times its seconds per frame is tried again: it may be faster by now."""


@dataclass(slots=True)
class _Way:
    """What is known of one way.

    Attributes:
        since_s: when its oldest open frame came first in line; when it fell idle, if it has none.
        service_s: from one answer to the next while it is busy; None before it is known.
        answers: that `service_s` is made of, and the cold ones.
        open: frames that it has.
    """

    since_s: float
    service_s: float | None = None
    answers: int = 0
    open: int = 0

    @property
    def is_free(self) -> bool:
        """Whether it is known, and waits for a frame."""
        return self.service_s is not None and not self.open

    def is_rested(self, now: float) -> bool:
        """Whether it was free for so long that it should be tried again."""
        return self.is_free and now - self.since_s > RETRY * (self.service_s or 0.0)

    def rank(self, now: float, curious: bool) -> tuple[bool, float]:
        """When it will have answered one more frame. A way that is not known gets one frame at once, if
        the dealer is curious, and no other one while there are ways that are known."""
        if self.service_s is None:
            return (False, now) if curious and not self.open else (True, self.open)
        if self.open:
            return False, max(self.since_s + self.service_s, now) + self.open * self.service_s
        return False, now if self.is_rested(now) else now + self.service_s


class Dealer:
    """Deals frames out to ways, which are known by numbers.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ways: dict[int, _Way] = {}

    def deal(self, ways: Sequence[int]) -> int:
        """The way of the next frame, which counts as open there; the first of equals. The first of all is
        for a frame alone: others become known only when those that are known are busy."""
        now = self._clock()
        found = {number: self._ways.setdefault(number, _Way(now)) for number in ways}
        curious = not any(way.is_free for way in found.values())
        number = min(found, key=lambda number: found[number].rank(now, curious))
        way = self._ways[number]
        if way.is_rested(now):
            way.answers = COLD  # what it was counts no more
        if not way.open:
            way.since_s = now
        way.open += 1
        return number

    def answered(self, number: int) -> None:
        """A way has answered a frame."""
        way = self._ways.get(number)
        if way is None or not way.open:
            return
        now = self._clock()
        seen_s, way.since_s = now - way.since_s, now
        way.open -= 1
        way.answers += 1
        if way.answers > COLD:
            weight = max(WEIGHT, 1 / (way.answers - COLD))
            before_s = way.service_s or 0.0
            way.service_s = before_s + weight * (seen_s - before_s)

    def dropped(self, number: int) -> None:
        """A frame of a way was given up."""
        way = self._ways.get(number)
        if way is not None and way.open:
            way.open -= 1

    def forget(self, number: int) -> None:
        """A way is over, with all its frames."""
        self._ways.pop(number, None)
