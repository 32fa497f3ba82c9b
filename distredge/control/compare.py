"""Policies × models × clusters: what each policy decides, and what the simulator says of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from distredge.cluster.hosts import Cluster
from distredge.control.problem import planning_problem
from distredge.errors import PolicyError
from distredge.graph.model import Graph
from distredge.plan.policy import PlanningProblem, Policy, decide, get_policy
from distredge.plan.strategy import Strategy
from distredge.plan.wire import EXACT, whole_bytes
from distredge.sim.bound import lower_bound
from distredge.sim.pricing import Pricer

IN_FLIGHT = 8
"""Frames of a stream that are under way at a time, unless another number is asked for."""


@dataclass(frozen=True)
class Comparison:
    """One policy on one model and cluster.

    Attributes:
        latency_s: of one frame alone, simulated; None if the policy could not decide.
        images_per_second: of a stream with `in_flight` frames under way, simulated. A policy that
            deals whole frames to several devices (`replicate`) is measured so.
        planning_s: how long the policy thought, the making of the simulator's tables included.
        bound_s: no strategy has a lower latency.
        winner: the policy whose strategy it is, if it chose among others.
        latencies_s: of those it chose among.
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
    in_flight: int = IN_FLIGHT
    winner: str = ""
    latencies_s: Mapping[str, float] = field(default_factory=dict)
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
        others = [t for name, t in self.latencies_s.items() if name != self.winner and isfinite(t)]
        return min(others) / self.latency_s if others and self.latency_s else None

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
    in_flight: int = IN_FLIGHT,
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
    rate = (
        replicated_rate(problem, decision.replicas, pricer)
        if decision.replicas
        else pricer.images_per_second(decision.strategy, in_flight)
    )
    return Comparison(
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
        decision.strategy,
    )


def compare(
    models: Mapping[str, Graph],
    clusters: Sequence[Cluster],
    policies: Iterable[Policy],
    *,
    seed: int = 0,
    budget_s: float = 2.0,
    in_flight: int = IN_FLIGHT,
    wire: str = EXACT,
    overlap: bool = True,
) -> Iterator[Comparison]:
    """Every policy on every model and cluster, one row at a time."""
    chosen = list(policies)
    for model, graph in models.items():
        for cluster in clusters:
            problem = planning_problem(
                graph, cluster, seed=seed, budget_s=budget_s, wire=wire, overlap=overlap
            )
            pricer = Pricer(problem)
            for policy in chosen:
                yield evaluate(
                    problem, policy, model=model, cluster=cluster.name, in_flight=in_flight, pricer=pricer
                )


def replicated_rate(problem: PlanningProblem, devices: Sequence[int], pricer: Pricer) -> float:
    """Images per second when whole frames are dealt to these devices, with as many under way as it takes.

    Each device takes frames as fast as the slowest of its unit and its two links lets it, and all of
    them together no more than the requester's links and the access point carry.
    """
    graph, network = problem.graph, problem.network
    sent = 8e-6 * sum(whole_bytes(graph, name, problem.wire) for name in graph.inputs)
    returned = 8e-6 * sum(whole_bytes(graph, name, problem.wire) for name in graph.outputs)
    rates = []
    for device in devices:
        link = network.link(device)
        limits = [
            1 / pricer.single_device_compute_s(device),
            link.downlink_mbps / sent if sent else float("inf"),
            link.uplink_mbps / returned if returned else float("inf"),
        ]
        rates.append(min(limits))
    requester = network.requester
    shared = [
        requester.uplink_mbps / sent if sent else float("inf"),
        requester.downlink_mbps / returned if returned else float("inf"),
        network.access_point_mbps / (sent + returned) if sent + returned else float("inf"),
    ]
    return min(sum(rates), *shared)
