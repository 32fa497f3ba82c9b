"""Cluster + graph -> planning problem: what a policy is asked."""

from __future__ import annotations

from math import inf

from distredge.cluster.hosts import Cluster
from distredge.cluster.load import cluster_times
from distredge.cluster.network import Network
from distredge.graph.model import Graph
from distredge.plan.objective import LATENCY, Objective
from distredge.plan.policy import Device, PlanningProblem
from distredge.plan.wire import EXACT


def planning_problem(
    graph: Graph,
    cluster: Cluster,
    *,
    seed: int = 0,
    budget_s: float = 2.0,
    wire: str = EXACT,
    overlap: bool = True,
    objective: Objective = LATENCY,
) -> PlanningProblem:
    """Shares out `graph` over the devices of `cluster`: their profiles, memory and links.

    Args:
        graph: the model.
        cluster: each of its devices names a profile, measured or of the catalog.
        seed: of everything random.
        budget_s: how long a policy may think.
        wire: how rows may be coded; see `distredge.plan.wire`.
        overlap: whether strategies may have lanes.
        objective: what the plan shall be good at.

    Raises:
        HostsError: a device has no profile, or names an unknown one.
        ProfileError: a profile cannot be read, or is of another model.
    """
    times = cluster_times(cluster, graph)
    devices = tuple(
        Device(device.name, found, inf if device.memory_mb is None else device.memory_mb * 1e6)
        for device, found in zip(cluster.devices, times, strict=True)
    )
    return PlanningProblem(graph, devices, Network.of(cluster), seed, budget_s, wire, overlap, objective)
