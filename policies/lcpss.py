"""`lcpss`: where to cut the depth, by LC-PSS; the rows by speed (Hou et al., IPDPS 2022, DistrEdge)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import Strategy
from policies.cuts import narrow_cuts
from policies.linear import Array, LinearModel, linear_model
from policies.memory import fitted
from policies.parts import fractions_of, pricer_for, shared_out

ALPHA = 0.75
"""Weight of what is transmitted against what is computed [R: the paper's]."""
SPLITS = 100
"""Random split decisions over which a scheme's score is averaged [R: the paper's]."""


@dataclass(frozen=True)
class LCPSS:
    """Layer-configuration based partition scheme search, and rows in proportion to measured speed.

    Attributes:
        alpha: weight of the transmitted amount, 0 to 1 [R].
        splits: random split decisions per score [R].
    """

    name: str = "lcpss"
    alpha: float = ALPHA
    splits: int = SPLITS

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """LC-PSS's volumes, the same shares in each.

        Raises:
            PolicyError: the model does not fit into memory.
        """
        speeds = pricer_for(problem).speeds()
        return fitted(problem, shared_out(problem.graph, self.find_cuts(problem), speeds))

    def find_cuts(self, problem: PlanningProblem) -> tuple[str, ...]:
        """The partition scheme: `C_p = alpha * T + (1 - alpha) * O`, least by greedy search [R].

        From one volume on, each round tries every cut that is left and keeps the one that lowers the score
        most, until none does. T is normalised by the layer-by-layer scheme, O by the single volume [O].
        Each random decision cuts all volumes at the same fractions [O].
        """
        model = linear_model(problem.graph, narrow_cuts(problem.graph))
        moved, computed = _amounts(model, len(problem.devices), self.splits, problem.seed)
        last = len(model.cuts) + 1
        single, layers = [0, last], list(range(last + 1))
        score = self.alpha * moved / max(1.0, _total(moved, layers))
        score = score + (1 - self.alpha) * computed / max(1.0, _total(computed, single))
        places, best = single, _total(score, single)
        while True:
            tried = [sorted([*places, place]) for place in layers if place not in places]
            if not tried:
                break
            found = min(tried, key=lambda at: _total(score, at))
            if _total(score, found) >= best:
                break
            places, best = found, _total(score, found)
        return tuple(model.cuts[place - 1] for place in places[1:-1])


def _amounts(model: LinearModel, devices: int, splits: int, seed: int) -> tuple[Array, Array]:
    """Bytes moved and multiply-accumulates computed of each volume, by start and end, on average."""
    shares = np.random.default_rng(seed).exponential(size=(splits, devices))
    places = len(model.cuts) + 2
    moved, computed = np.zeros((places, places)), np.zeros((places, places))
    for volumes in model.sweep(fractions_of(shares)):
        moved[: volumes.end, volumes.end] = volumes.received.sum(axis=2).mean(axis=1)
        computed[: volumes.end, volumes.end] = volumes.work.sum(axis=2).mean(axis=1)
    return moved, computed


def _total(amounts: Array, places: list[int]) -> float:
    return float(sum(amounts[start, end] for start, end in pairwise(places)))
