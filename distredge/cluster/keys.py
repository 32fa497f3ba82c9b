"""Which connections of a cluster are encrypted, and where this machine keeps its keys for it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from distredge.cluster.hosts import Cluster, Provider

CONTROLLER = "controller"
"""What the requester's own pair of keys is called."""
REQUESTER = "requester"
"""What its public key is called on hosts; no host can be called so. More requesters are `requester@NAME`."""


def is_encrypted(cluster: Cluster, device: Provider) -> bool:
    """Whether connections to a device are encrypted: all that leave the loopback network, unless the hosts
    file says otherwise."""
    if cluster.encryption == "auto":
        return not device.is_local
    return cluster.encryption == "on"


def keys_dir(cluster: Cluster) -> Path:
    """Where this machine keeps the keys of a cluster: where its hosts file says, else one folder per hosts
    file in the user's configuration."""
    if cluster.requester.keys is not None:
        return Path(cluster.requester.keys)
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "distredge" / "clusters"
    return base / hashlib.sha256(str(Path(cluster.path).resolve()).encode()).hexdigest()[:16]


def with_keys_named(cluster: Cluster) -> Cluster:
    """The cluster with its folder of keys named, to be written as a hosts file of another path."""
    if not any(is_encrypted(cluster, device) for device in cluster.devices):
        return cluster
    folder = str(keys_dir(cluster).resolve())
    return replace(cluster, requester=replace(cluster.requester, keys=folder))


def key_file(cluster: Cluster, device: Provider) -> Path:
    """Where a device's public key is, or would be: all slots of a provider share one."""
    folder = keys_dir(cluster) / "hosts"
    own, shared = (folder / f"{name}.key" for name in (device.name, device.name.rpartition(".")[0]))
    return shared if shared.is_file() and not own.is_file() else own
