"""Cluster + graph -> planning problem: what a policy is asked."""

from __future__ import annotations

from math import inf

from distredge.cluster.hosts import Cluster
from distredge.cluster.load import cluster_times
from distredge.cluster.network import Network
from distredge.graph.model import Graph
from distredge.plan.options import DEFAULTS, PlanningOptions
from distredge.plan.policy import Device, PlanningProblem


def planning_problem(graph: Graph, cluster: Cluster, options: PlanningOptions = DEFAULTS) -> PlanningProblem:
    """Shares out `graph` over the devices of `cluster`: their profiles, memory and links.

    Args:
        graph: the model.
        cluster: each of its devices names a profile, measured or of the catalog.
        options: how to plan.

    Raises:
        HostsError: a device has no profile, or names an unknown one.
        ProfileError: a profile cannot be read, or is of another model.
    """
    times = cluster_times(cluster, graph)
    devices = (
        Device(device.name, found, inf if device.memory_mb is None else device.memory_mb * 1e6)
        for device, found in zip(cluster.devices, times, strict=True)
    )
    return PlanningProblem.of(graph, devices, Network.of(cluster), options)
