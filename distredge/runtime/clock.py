"""How far another machine's clock is from this one's."""

from __future__ import annotations

from math import inf


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
        """Another question's times by this clock, and what the other clock said.

        Args:
            asked_s: negative if it is not known any more.
        """
        round_trip_s = answered_s - asked_s
        if asked_s >= 0 and round_trip_s <= self.round_trip_s:
            self.round_trip_s = round_trip_s
            self.offset_s = clock_s - (asked_s + answered_s) / 2
