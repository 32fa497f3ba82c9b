"""What a policy is, what it is asked, and how it is found by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from math import inf
from typing import Protocol

from distredge.cluster.network import Network
from distredge.cluster.segment import ComputeTimes
from distredge.errors import PolicyError
from distredge.graph.model import Graph
from distredge.plan.objective import LATENCY, Objective
from distredge.plan.options import PlanningOptions
from distredge.plan.strategy import Strategy
from distredge.plan.wire import EXACT

GROUP = "distredge.policies"


@dataclass(frozen=True)
class Device:
    """One provider, as a planner sees it.

    Attributes:
        name: unique in the cluster.
        times: rows -> seconds for this model.
        memory_bytes: what its parts' weights and activations may take.
    """

    name: str
    times: ComputeTimes
    memory_bytes: float = inf


@dataclass(frozen=True)
class PlanningProblem:
    """What a policy is asked: share out this model over these devices.

    Attributes:
        graph: the model.
        devices: the providers, in the order of a strategy's parts.
        network: their links and the requester's.
        seed: of everything random.
        budget_s: how long the policy may think; those that need no search ignore it.
        wire: how rows may be coded on the wire; see `distredge.plan.wire`.
        overlap: whether strategies may have lanes, so that rows travel while a device computes others.
        objective: what the plan shall be good at; see `check_objective`.
    """

    graph: Graph
    devices: tuple[Device, ...]
    network: Network
    seed: int = 0
    budget_s: float = 2.0
    wire: str = EXACT
    overlap: bool = True
    objective: Objective = LATENCY

    @classmethod
    def of(
        cls, graph: Graph, devices: Iterable[Device], network: Network, options: PlanningOptions
    ) -> PlanningProblem:
        """This model over these devices, as the options say."""
        return cls(
            graph,
            tuple(devices),
            network,
            options.seed,
            options.budget_s,
            options.wire,
            options.overlap,
            options.objective,
        )


class Policy(Protocol):
    """Whatever yields a strategy. Instances hold their own settings; the same problem and settings give
    the same strategy, unless the budget is what ends the search.

    One with a true attribute `plans_streams` plans for streams too, as `auto` and `replicate` do.
    """

    @property
    def name(self) -> str:
        """What `get_policy` finds it by."""
        ...

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """One split decision per volume, each with one part per device of the problem.

        Raises:
            PolicyError: it cannot decide here (memory too small for the model, a package missing).
        """
        ...


@dataclass(frozen=True)
class Decision:
    """A strategy, and what a policy can say beyond it.

    Attributes:
        strategy: the decision.
        winner: the policy whose strategy it is, where one chose among others.
        latencies_s: simulated latency of each strategy it chose among, by policy; with `infinity` for those
            that could not decide.
        rates: simulated images per second of each, where the objective is of a stream.
        why: what speaks for the winner, where the objective is of a stream; or why devices were left out.
    """

    strategy: Strategy
    winner: str = ""
    latencies_s: Mapping[str, float] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    why: str = ""


@cache
def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def policy_names() -> tuple[str, ...]:
    """All installed policies; none of them is imported."""
    return tuple(sorted(_entries()))


def get_policy(name: str, **settings: object) -> Policy:
    """A policy by name.

    Args:
        name: of an entry point in the group `distredge.policies`.
        settings: the policy's own.

    Raises:
        PolicyError: there is none of that name, or a package that it needs is not installed.
    """
    entry = _entries().get(name)
    if entry is None:
        raise PolicyError(f"there is no policy {name!r}; there are {', '.join(policy_names())}", policy=name)
    try:
        factory = entry.load()
    except ImportError as error:
        raise PolicyError(
            f"policy {name!r} needs the package {error.name!r}; pip install 'distredge[planner]'", policy=name
        ) from error
    policy: Policy = factory(**settings)
    return policy


def check_objective(policy: Policy, objective: Objective) -> None:
    """Refuses a policy that plans for one frame alone where something else is asked for.

    Raises:
        PolicyError: what is asked for would be ignored.
    """
    if objective.is_of_stream and not getattr(policy, "plans_streams", False):
        raise PolicyError(
            f"policy {policy.name!r} plans for one frame alone, not for {objective}; give policy auto or "
            "replicate, or none",
            policy=policy.name,
        )


def find_strategy(problem: PlanningProblem, policy: str | Policy = "auto") -> Strategy:
    """The strategy that a policy, given by name or itself, finds for a problem."""
    chosen = get_policy(policy) if isinstance(policy, str) else policy
    return chosen.find_strategy(problem)


def decide(problem: PlanningProblem, policy: str | Policy = "auto") -> Decision:
    """As `find_strategy`, with everything that the policy can say; those that have no method `decide`
    only have a strategy to tell of."""
    chosen = get_policy(policy) if isinstance(policy, str) else policy
    method = getattr(chosen, "decide", None)
    decision: Decision = method(problem) if method else Decision(chosen.find_strategy(problem), chosen.name)
    return decision
