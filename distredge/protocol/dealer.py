"""Which way each whole frame goes, where a stream may take several: the one that will be done first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

WEIGHT = 0.2
"""Of what was seen last, in a way's seconds per frame."""
RETRY = 30.0
"""A way that lies idle for so many times its seconds per frame is tried again: it may be faster by now."""


@dataclass(slots=True)
class _Way:
    """What is known of one way.

    Attributes:
        service_s: from one answer to the next while it is busy; None before the first one.
        since_s: when its oldest open frame came first in line; when it fell idle, if it has none.
        open: frames that it has.
    """

    since_s: float
    service_s: float | None = None
    open: int = 0


class Dealer:
    """Deals frames out to ways, which are known by numbers.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ways: dict[int, _Way] = {}

    def deal(self, ways: Sequence[int]) -> int:
        """The way of the next frame, which counts as open there; the first of equals."""
        now = self._clock()
        known = [self._ways.setdefault(number, _Way(now)) for number in ways]
        ranks = [_rank(way, now) for way in known]
        at = ranks.index(min(ranks))
        if not known[at].open:
            known[at].since_s = now
        known[at].open += 1
        return ways[at]

    def answered(self, number: int) -> None:
        """A way has answered a frame."""
        way = self._ways.get(number)
        if way is None or not way.open:
            return
        now = self._clock()
        seen_s = now - way.since_s
        way.service_s = seen_s if way.service_s is None else way.service_s + WEIGHT * (seen_s - way.service_s)
        way.since_s = now
        way.open -= 1

    def dropped(self, number: int) -> None:
        """A frame of a way was given up."""
        way = self._ways.get(number)
        if way is not None and way.open:
            way.open -= 1

    def forget(self, number: int) -> None:
        """A way is over, with all its frames."""
        self._ways.pop(number, None)


def _rank(way: _Way, now: float) -> tuple[bool, float]:
    """When a way will have answered one more frame. One that nobody knows gets its first frame at once, and
    no other one while there are ways that are known."""
    service_s = way.service_s
    if service_s is None:
        return (True, way.open) if way.open else (False, now)
    if way.open:
        return False, max(way.since_s + service_s, now) + way.open * service_s
    is_forgotten = now - way.since_s > RETRY * service_s
    return False, now if is_forgotten else now + service_s
