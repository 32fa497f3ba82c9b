"""`modnn`: every layer its own volume, rows by compute speed (MoDNN, Mao et al., DATE 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import Strategy
from policies.cuts import layer_cuts
from policies.memory import fitted
from policies.parts import pricer_for, shared_out


@dataclass(frozen=True)
class MoDNN:
    """Biased one-dimensional partition: each layer is split in proportion to the devices' speed [R].

    Where the definition leaves room: speed is measured on this model (one over the seconds for all of its
    layers), not taken from a data sheet; pooling belongs to the layer in front of it, which moves less;
    devices keep the rows that they computed and exchange only what is missing, where MoDNN gathers each
    layer at a group owner and deals it out again; the tail goes to the device that answers soonest. All of
    these make it faster than the paper's text demands.
    """

    name: str = "modnn"

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """The same shares for every layer.

        Raises:
            PolicyError: the model does not fit into memory.
        """
        speeds = pricer_for(problem).speeds()
        return fitted(problem, shared_out(problem.graph, layer_cuts(problem.graph), speeds))
