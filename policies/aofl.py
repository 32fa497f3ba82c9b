"""`aofl`: dynamic programming over fusion points under a linear latency model (Zhou et al., SEC 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from distredge.errors import PolicyError
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import Strategy
from policies.cuts import narrow_cuts
from policies.linear import alone_seconds, fused_cuts, linear_model
from policies.memory import fitted
from policies.parts import best_of, pricer_for, shared_out

Variant = Literal["even", "linear", "best"]


@dataclass(frozen=True)
class AOFL:
    """`r(n) = min_i (p_i + r(n - i))`: p is the time of a fused volume, its slowest device's compute plus
    the rows that it must receive first.

    `even` splits into equal rows, as its public code does [S]; `linear` in proportion to device capability,
    as DistrEdge describes it [R]. Where the definition leaves room: the better of the two under the
    simulator; devices that would only slow a volume down may be left out by `linear` (it tries the k best
    alone, for each k); only missing rows are moved, from device to device, not through the host.

    Attributes:
        variant: `even`, `linear` or the better of them.
    """

    name: str = "aofl"
    variant: Variant = "best"

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """The better variant.

        Raises:
            PolicyError: the model does not fit into memory.
        """
        graph, devices = problem.graph, len(problem.devices)
        speeds = pricer_for(problem).speeds()
        model = linear_model(graph, narrow_cuts(graph))
        shares = []
        if self.variant in ("even", "best"):
            shares.append(np.ones(devices))
        if self.variant in ("linear", "best"):
            order = np.argsort(alone_seconds(problem), kind="stable")
            for count in _subset_sizes(devices):
                kept = np.zeros(devices)
                kept[order[:count]] = speeds[order[:count]]
                shares.append(kept)
        strategies, problems = [], []
        for share, cuts in zip(shares, fused_cuts(problem, model, np.array(shares)), strict=True):
            try:
                strategies.append(fitted(problem, shared_out(graph, cuts, share)))
            except PolicyError as error:
                problems.append(error)
        if not strategies:
            raise problems[0]
        return best_of(problem, strategies)


def _subset_sizes(devices: int) -> list[int]:
    """1 to 4 devices, then every doubling, and all."""
    return sorted({*range(1, min(devices, 4) + 1), *(2**k for k in range(3, 12) if 2**k < devices), devices})
