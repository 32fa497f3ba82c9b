"""What goes wrong in one seeded run, and when."""

from __future__ import annotations

import random
from dataclasses import dataclass

KINDS = ("crash", "crash", "hang", "cut", "cut", "slow", "switch", "drop")
"""As often as named. `cut` and `slow` are of a link, `switch` changes the plan, `drop` gives a frame up."""
LAST_EVENT = 250
"""Faults strike after a number of events up to this: at any step, not at any time."""
LONG_S = 4.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: one of KINDS.
        after: events that have happened before.
        device: whom it befalls.
        other: the other end of its link; -1 is the requester.
        seconds: how long; infinity for good.
        quiet: nobody is told: the network swallows what a connection's end would say.
    """

    kind: str
    after: int
    device: int
    other: int
    seconds: float
    quiet: bool


def draw_faults(rng: random.Random, devices: int) -> list[Fault]:
    """One to six faults in order. One device is spared from ends for good, but not from anything else."""
    spared = rng.randrange(devices)
    faults = []
    for _ in range(rng.choice((1, 2, 3, 4, 6))):
        kind = rng.choice(KINDS)
        device = rng.randrange(devices)
        other = rng.choice([end for end in range(-1, devices) if end != device])
        seconds = LONG_S * rng.random() ** 2
        if kind == "crash" and device != spared and rng.random() < 0.3:
            seconds = float("inf")
        faults.append(Fault(kind, rng.randrange(LAST_EVENT), device, other, seconds, rng.random() < 0.3))
    return sorted(faults, key=lambda fault: fault.after)
