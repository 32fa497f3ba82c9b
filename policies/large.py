"""Large clusters: one frame is shared out over some of the devices; each more adds messages to all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distredge.plan.policy import Decision, PlanningProblem
from policies.linear import alone_seconds

MOST = 24
"""Devices that a frame may be shared out over. A guess: `benchmarks.scale` holds it against 48."""


def strongest(problem: PlanningProblem, count: int = MOST) -> tuple[int, ...]:
    """The devices that would be done first with the whole model, their input included; in the order of the
    problem."""
    order = np.argsort(alone_seconds(problem), kind="stable")[:count]
    return tuple(sorted(int(device) for device in order))


def among(problem: PlanningProblem, chosen: Sequence[int]) -> PlanningProblem:
    """The same problem with these devices only."""
    return replace(
        problem,
        devices=tuple(problem.devices[device] for device in chosen),
        network=problem.network.of_members(chosen),
    )


def for_all(decision: Decision, problem: PlanningProblem, chosen: Sequence[int]) -> Decision:
    """A decision for some devices as one for all of them, of which the others have no rows."""
    count = len(problem.devices)
    strategy = decision.strategy.embedded(chosen, count)
    names = [problem.devices[device].name for device in chosen]
    return replace(
        decision,
        strategy=strategy,
        why=f"planned for the {len(chosen)} strongest of {count} devices, each alone with the whole model: "
        f"{', '.join(names)}",
    )
