"""What a plan shall be good at: one frame alone, a stream, or one frame while a stream keeps its rate."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from distredge.errors import InputError

AT_RATE = "latency-at-rate="
FORMS = f"latency, throughput, or {AT_RATE}FPS"


@dataclass(frozen=True, slots=True)
class Objective:
    """What a planner looks for.

    Attributes:
        wants_rate: the most images per second.
        rate: images per second to sustain; of the plans that do, the one of the lowest latency is wanted. 0:
            any. With `wants_rate` it means nothing.
    """

    wants_rate: bool = False
    rate: float = 0.0

    @property
    def is_of_stream(self) -> bool:
        """Whether more than one frame alone counts."""
        return self.wants_rate or self.rate > 0

    @property
    def policy(self) -> str:
        """Who decides, where nobody is named: `auto` is the only one that looks at objectives of a stream."""
        return "auto" if self.is_of_stream else "proportional"

    @classmethod
    def parse(cls, text: str) -> Objective:
        """`latency`, `throughput`, or `latency-at-rate=` and images per second.

        Raises:
            InputError: it is none of these.
        """
        if not isinstance(text, str):
            raise InputError(f"objective is of type {type(text).__name__}; give {FORMS}")
        if text == "latency":
            return cls()
        if text == "throughput":
            return cls(wants_rate=True)
        if text.startswith(AT_RATE):
            try:
                rate = float(text.removeprefix(AT_RATE))
            except ValueError:
                rate = 0.0
            if 0 < rate < inf:
                return cls(rate=rate)
            raise InputError(f"objective {text}: the rate must be a number of images a second above 0")
        raise InputError(f"objective {text!r} is unknown; give {FORMS}")

    def __str__(self) -> str:
        if self.wants_rate:
            return "throughput"
        return f"{AT_RATE}{self.rate:g}" if self.rate else "latency"


LATENCY = Objective()
"""Of one frame alone."""
