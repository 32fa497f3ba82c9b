"""From what a user names, a cluster or a profile, to what a planner computes with."""

from __future__ import annotations

from pathlib import Path

from distredge.cluster import catalog
from distredge.cluster.catalog.grid import CLUSTERS
from distredge.cluster.hosts import Cluster, Provider, load_hosts
from distredge.cluster.profile import load_profile
from distredge.cluster.segment import ComputeTimes
from distredge.errors import HostsError
from distredge.graph.model import Graph


def load_cluster(name_or_path: str | Path) -> Cluster:
    """A cluster of the catalog by its name (`DA-NA`), or one described by a hosts file.

    Raises:
        HostsError: neither; or the file is wrong.
    """
    name = str(name_or_path)
    if name in CLUSTERS and not Path(name).exists():
        return catalog.cluster(name)
    if "/" not in name and "." not in name and not Path(name).exists():
        return catalog.cluster(name)  # which says what the names are
    return load_hosts(name_or_path)


def compute_times(provider: Provider, graph: Graph, where: str = "") -> ComputeTimes:
    """The times of one device for one model, from what its `profile` names.

    A measured profile may be a file, or a folder that holds one file per model, `DIGEST.json` with the
    first 16 characters of `Graph.digest`.

    Args:
        provider: a device.
        graph: the model.
        where: the hosts file, for messages.

    Raises:
        HostsError: the provider has no profile, or names an unknown device.
        ProfileError: the profile cannot be read, or is of another model.
    """
    place = f"{where}:{provider.line}: " if where and provider.line else ""
    if provider.profile is None:
        remedy = "run `distredge profile`, or name a device of the catalog"
        raise HostsError(
            f"{place}[provider:{provider.name}]: has no profile; {remedy}", provider=provider.name
        )
    if "/" not in provider.profile and not provider.profile.endswith(".json"):
        try:
            return catalog.device(provider.profile).on(graph)
        except HostsError as error:
            raise HostsError(f"{place}[provider:{provider.name}] profile: {error}", **error.context) from None
    path = Path(provider.profile)
    if path.is_dir():
        path /= f"{graph.digest[:16]}.json"
    profile = load_profile(path)
    profile.check(graph, threads=provider.threads)
    return profile


def cluster_times(cluster: Cluster, graph: Graph) -> tuple[ComputeTimes, ...]:
    """`compute_times` of each of `Cluster.devices`; devices that name the same profile share one object."""
    found: dict[tuple[str | None, int | None], ComputeTimes] = {}
    for device in cluster.devices:
        key = device.profile, device.threads
        if key not in found:
            found[key] = compute_times(device, graph, cluster.path)
    return tuple(found[device.profile, device.threads] for device in cluster.devices)
