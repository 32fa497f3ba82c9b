"""Policies × models × clusters: what each policy decides, and what the simulator says of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from distredge.cluster.hosts import Cluster
from distredge.control.problem import planning_problem
from distredge.errors import PolicyError
from distredge.graph.model import Graph
from distredge.plan.objective import LATENCY, Objective
from distredge.plan.options import DEFAULTS, PlanningOptions
from distredge.plan.policy import PlanningProblem, Policy, decide, get_policy
from distredge.plan.strategy import Strategy
from distredge.sim.bound import lower_bound
from distredge.sim.pricing import Pricer
from distredge.sim.rates import only_device, stream_rate

LOSS = 1.005
"""What gives so many times more images a second is better; less is within the simulator's error."""


@dataclass(frozen=True)
class Comparison:
    """One policy on one model and cluster.

    Attributes:
        latency_s: of one frame alone, simulated; None if the policy could not decide.
        images_per_second: of a stream with `in_flight` frames under way, simulated; where whole frames are
            dealt out to several devices or groups (`replicate`), with as many as that takes.
        planning_s: how long the policy thought, the making of the simulator's tables included.
        bound_s: no strategy has a lower latency.
        winner: the policy whose strategy it is, if it chose among others.
        latencies_s: of those it chose among.
        objective: what was asked for.
        rates: images per second of those it chose among, where the objective is of a stream.
        why: what speaks for the winner, likewise; or why devices were left out.
        best_device, best_device_images_per_second: the device that gives most alone, and how much, likewise.
        replicate_images_per_second: of frames dealt out whole to all devices, likewise.
        strategy: what it decided.
        error: why it could not decide.
        measured_latency_s, measured_images_per_second: the same on running peers, the median of the
            frames; None where nothing was run.
    """

    model: str
    cluster: str
    policy: str
    latency_s: float | None
    images_per_second: float | None
    planning_s: float
    bound_s: float
    in_flight: int = DEFAULTS.in_flight
    winner: str = ""
    latencies_s: Mapping[str, float] = field(default_factory=dict)
    objective: Objective = LATENCY
    rates: Mapping[str, float] = field(default_factory=dict)
    why: str = ""
    best_device: str = ""
    best_device_images_per_second: float | None = None
    replicate_images_per_second: float | None = None
    strategy: Strategy | None = None
    error: str = ""
    measured_latency_s: float | None = None
    measured_images_per_second: float | None = None

    @property
    def gap(self) -> float | None:
        """How far the latency lies above the bound: 0.1 for a tenth."""
        return None if self.latency_s is None else self.latency_s / self.bound_s - 1

    @property
    def lead(self) -> float | None:
        """For a policy that chose: the best one beside the winner, over its latency; 1.1: a tenth slower."""
        if self.objective.is_of_stream:
            return None
        others = [t for name, t in self.latencies_s.items() if name != self.winner and isfinite(t)]
        return min(others) / self.latency_s if others and self.latency_s else None

    @property
    def loses_to(self) -> str:
        """What gives more images per second than this, where the objective is throughput; else empty."""
        rate = self.images_per_second
        if rate is None or not self.objective.wants_rate:
            return ""
        others = {
            f"{self.best_device} alone": self.best_device_images_per_second,
            "replicate": self.replicate_images_per_second,
        }
        better = [f"{name} ({more:.1f})" for name, more in others.items() if more and more > LOSS * rate]
        return " and ".join(better)

    @property
    def sustains(self) -> bool:
        """Whether it has the rate that the objective asks for."""
        return self.images_per_second is not None and self.images_per_second >= self.objective.rate

    def to_json(self) -> dict[str, Any]:
        """Plain values; a number that is not there is null."""
        row: dict[str, Any] = {
            "model": self.model,
            "cluster": self.cluster,
            "policy": self.policy,
            "latency_s": self.latency_s,
            "images_per_second": self.images_per_second,
            "in_flight": self.in_flight,
            "planning_s": self.planning_s,
            "bound_s": self.bound_s,
            "gap": self.gap,
        }
        if self.why:
            row["why"] = self.why
        if self.objective.is_of_stream:
            row |= {
                "objective": str(self.objective),
                "rates": dict(self.rates),
                "best_device": self.best_device,
                "best_device_images_per_second": self.best_device_images_per_second,
                "replicate_images_per_second": self.replicate_images_per_second,
                "loses_to": self.loses_to,
            }
            if self.objective.rate:
                row["sustains"] = self.sustains
        if self.latencies_s:
            row["winner"] = self.winner
            row["lead"] = self.lead
            row["latencies_s"] = {k: v if isfinite(v) else None for k, v in self.latencies_s.items()}
        if self.measured_latency_s is not None and self.latency_s is not None:
            row["measured_latency_s"] = self.measured_latency_s
            row["measured_images_per_second"] = self.measured_images_per_second
            row["latency_error"] = self.latency_s / self.measured_latency_s - 1
        if self.error:
            row["error"] = self.error
        return row


def evaluate(
    problem: PlanningProblem,
    policy: str | Policy,
    *,
    model: str = "",
    cluster: str = "",
    in_flight: int = DEFAULTS.in_flight,
    pricer: Pricer | None = None,
) -> Comparison:
    """Lets one policy decide, and prices what it decided.

    Args:
        problem: what is asked.
        policy: by name, or itself.
        model, cluster: names for the row.
        in_flight: frames of the stream that are under way at a time.
        pricer: of the same problem, to save its making.

    Raises:
        PolicyError: there is no such policy, or the package that it needs is missing.
    """
    chosen = get_policy(policy) if isinstance(policy, str) else policy
    pricer = pricer or Pricer(problem)
    bound_s = lower_bound(problem)
    start = time.perf_counter()
    try:
        decision = decide(problem, chosen)
    except PolicyError as error:
        seconds = time.perf_counter() - start
        return Comparison(
            model, cluster, chosen.name, None, None, seconds, bound_s, in_flight, error=str(error)
        )
    seconds = time.perf_counter() - start
    rate = stream_rate(pricer, decision.strategy, in_flight).images_per_second
    found = Comparison(
        model,
        cluster,
        chosen.name,
        pricer.latency_s(decision.strategy),
        rate,
        seconds,
        bound_s,
        in_flight,
        decision.winner,
        decision.latencies_s,
        problem.objective,
        decision.rates,
        decision.why,
        strategy=decision.strategy,
    )
    return _beside_simple_answers(problem, found, pricer) if problem.objective.is_of_stream else found


def _beside_simple_answers(problem: PlanningProblem, found: Comparison, pricer: Pricer) -> Comparison:
    """With what the best device alone, and all of them with whole frames, would give."""
    try:
        simple = decide(problem, "replicate").strategy
    except PolicyError:
        return found
    each = [stream_rate(pricer, way) for way in simple.ways]
    at = max(range(len(each)), key=lambda at: each[at].images_per_second)
    device = only_device(simple.ways[at])
    assert device is not None
    return replace(
        found,
        best_device=problem.devices[device].name,
        best_device_images_per_second=each[at].images_per_second,
        replicate_images_per_second=stream_rate(pricer, simple).images_per_second,
    )


def compare(
    models: Mapping[str, Graph],
    clusters: Sequence[Cluster],
    policies: Iterable[Policy],
    options: PlanningOptions = DEFAULTS,
) -> Iterator[Comparison]:
    """Every policy on every model and cluster, one row at a time."""
    chosen = list(policies)
    for model, graph in models.items():
        for cluster in clusters:
            problem = planning_problem(graph, cluster, options)
            pricer = Pricer(problem)
            for policy in chosen:
                yield evaluate(
                    problem,
                    policy,
                    model=model,
                    cluster=cluster.name,
                    in_flight=options.in_flight,
                    pricer=pricer,
                )
