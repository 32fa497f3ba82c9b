"""What OSDS starts from, and must not lose to: the baselines, and the partition schemes that it tries."""

from __future__ import annotations

from distredge.errors import PolicyError
from distredge.plan.policy import PlanningProblem, Policy
from distredge.plan.strategy import PartitionScheme, Strategy
from policies.aofl import AOFL
from policies.coedge import CoEdge
from policies.cuts import stage_cuts, with_head_cut
from policies.deeperthings import DeeperThings
from policies.deepthings import DeepThings
from policies.equal import Equal
from policies.lcpss import LCPSS
from policies.mednn import MeDNN
from policies.modnn import MoDNN
from policies.offload import Offload
from policies.parts import fits, pricer_for
from policies.proportional import Proportional
from policies.starts import fused_strategies

BASELINES: tuple[type, ...] = (
    Offload,
    Equal,
    Proportional,
    LCPSS,
    MoDNN,
    MeDNN,
    CoEdge,
    DeepThings,
    DeeperThings,
    AOFL,
)
"""The seven of the comparison, and the simple ones; `replicate` gives a frame what `offload` gives it."""

QUICK: tuple[type, ...] = (Offload, Proportional)
"""Those that take a millisecond or few."""


def baseline_strategies(problem: PlanningProblem, kinds: tuple[type, ...] = BASELINES) -> list[Strategy]:
    """Strategies of these policies, the one with the lowest latency first.

    Raises:
        PolicyError: none of them can decide.
    """
    pricer = pricer_for(problem)
    found: list[Strategy] = []
    problems: list[PolicyError] = []
    for kind in kinds:
        policy: Policy = kind()
        try:
            found.append(policy.find_strategy(problem))
        except PolicyError as error:
            problems.append(error)
    if not found:
        raise problems[0]
    return sorted(dict.fromkeys(found), key=pricer.latency_s)


def fused_starts(problem: PlanningProblem, count: int = 4) -> list[Strategy]:
    """The best few strategies on schemes that the linear model finds fastest for subsets of the devices."""
    fitting = [strategy for strategy in dict.fromkeys(fused_strategies(problem)) if fits(problem, strategy)]
    return sorted(fitting, key=pricer_for(problem).latency_s)[:count]


def candidate_schemes(problem: PlanningProblem, strategies: list[Strategy]) -> list[PartitionScheme]:
    """LC-PSS's scheme, that of the pooling stages, and those of these strategies."""
    graph = problem.graph
    schemes = [lcpss_scheme(problem), PartitionScheme(with_head_cut(graph, stage_cuts(graph)))]
    schemes += [strategy.scheme for strategy in strategies]
    return list(dict.fromkeys(schemes))


def lcpss_scheme(problem: PlanningProblem) -> PartitionScheme:
    """Where LC-PSS cuts the depth."""
    return PartitionScheme(with_head_cut(problem.graph, LCPSS().find_cuts(problem)))
