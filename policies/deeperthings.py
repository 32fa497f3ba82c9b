"""`deeperthings`: several fused volumes that move the fewest values, split evenly (Stahl et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import PartitionScheme, Strategy
from distredge.plan.volumes import find_volumes
from policies.cuts import narrow_cuts, with_head_cut
from policies.deepthings import even_split
from policies.linear import cheapest_cuts, linear_model
from policies.memory import fitted
from policies.parts import fractions_of, with_head_on


@dataclass(frozen=True)
class DeeperThings:
    """Fusion over the whole network, chosen to minimise the values moved between devices.

    Its code states an integer program over layer types; with rows alone as a split (the original also
    splits channels) the problem is a chain, and dynamic programming over its cuts is exact. Equal rows.
    Where the definition leaves room: devices keep what they own and only missing rows are moved; the tail
    goes to the device that answers soonest.
    """

    name: str = "deeperthings"

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """Even splits of the volumes that move fewest bytes.

        Raises:
            PolicyError: the model does not fit into memory.
        """
        graph, devices = problem.graph, len(problem.devices)
        model = linear_model(graph, narrow_cuts(graph))
        even = fractions_of(np.ones((1, devices)))
        (cuts,) = cheapest_cuts(model, even, lambda volumes: volumes.received.sum(axis=2))
        scheme = PartitionScheme(with_head_cut(graph, cuts))
        splits = tuple(even_split(volume.rows, devices) for volume in find_volumes(graph, scheme))
        return fitted(problem, with_head_on(graph, Strategy(scheme, splits), 0))
