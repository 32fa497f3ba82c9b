"""How plans are made: all that is said besides the model, the devices and who decides."""

from __future__ import annotations

from dataclasses import dataclass

from distredge.plan.objective import LATENCY, Objective
from distredge.plan.wire import EXACT


@dataclass(frozen=True, slots=True)
class PlanningOptions:
    """What commands and sessions pass on to whoever plans.

    Attributes:
        seed: of everything random.
        budget_s: how long a policy may think.
        in_flight: frames of a stream that are under way at a time, where one is priced.
        wire: how rows may be coded; see `distredge.plan.wire`.
        overlap: whether strategies may have lanes.
        objective: what plans shall be good at.
    """

    seed: int = 0
    budget_s: float = 2.0
    in_flight: int = 8
    wire: str = EXACT
    overlap: bool = True
    objective: Objective = LATENCY


DEFAULTS = PlanningOptions()
"""What holds where nothing is said."""
