"""How far the peers' clocks are from this one's, by questions that also show that they live."""

from __future__ import annotations

from itertools import count
from math import inf

_REMEMBERED = 64
AGEING = 1.01


class ClockOffset:
    """The offset by the question whose answer came fastest: the less it travelled, the less it can be wrong.

    Attributes:
        offset_s: to subtract from the other clock to get this one; 0 before the first answer.
        round_trip_s: of that question; the offset is wrong by at most half of it.
    """

    def __init__(self) -> None:
        self.offset_s = 0.0
        self.round_trip_s = inf

    def add(self, asked_s: float, answered_s: float, clock_s: float) -> None:
        """Another question's times by this clock, and what the other clock said."""
        round_trip_s = answered_s - asked_s
        self.round_trip_s *= AGEING  # clocks drift: even the best answer is worth less and less
        if round_trip_s <= self.round_trip_s:
            self.round_trip_s = round_trip_s
            self.offset_s = clock_s - (asked_s + answered_s) / 2


class Clocks:
    """Questions to all peers at once, by number.

    Args:
        peers: how many.
    """

    def __init__(self, peers: int) -> None:
        self._offsets = [ClockOffset() for _ in range(peers)]
        self._numbers = count(1)
        self._asked_s: dict[int, float] = {}

    def ask(self, now_s: float) -> int:
        """The number of a question that is asked now."""
        number = next(self._numbers)
        self._asked_s[number] = now_s
        self._asked_s.pop(number - _REMEMBERED, None)
        return number

    def answered(self, peer: int, number: int, now_s: float, clock_s: float) -> None:
        """A peer's answer; one to an old or unknown question says nothing."""
        asked_s = self._asked_s.get(number)
        if asked_s is not None:
            self._offsets[peer].add(asked_s, now_s, clock_s)

    def offset_s(self, peer: int) -> float:
        """To subtract from that peer's clock."""
        return self._offsets[peer].offset_s
