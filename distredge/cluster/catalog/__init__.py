"""Devices and clusters that can be named instead of described. All of them are synthetic."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from distredge.cluster.catalog.devices import DEVICES
from distredge.cluster.catalog.grid import CLUSTERS
from distredge.cluster.hosts import Cluster
from distredge.cluster.synthetic import SyntheticDevice
from distredge.errors import HostsError


def cluster(name: str) -> Cluster:
    """A cluster of the grid, such as `DA-NA`, or a large one: `LA`, `LB`, `LC`.

    Raises:
        HostsError: there is none of that name.
    """
    if name not in CLUSTERS:
        raise HostsError(f"{name}: no such cluster in the catalog; {_known(name, CLUSTERS)}", name=name)
    return CLUSTERS[name]


def device(name: str) -> SyntheticDevice:
    """A device type, such as `synthetic-jetson-nano`.

    Raises:
        HostsError: there is none of that name.
    """
    if name not in DEVICES:
        raise HostsError(f"{name}: no such device in the catalog; {_known(name, DEVICES)}", name=name)
    return DEVICES[name]


def _known(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
    return f"did you mean {close[0]}?" if close else f"it has {', '.join(names)}"
