"""A cluster written back as a hosts file, for programs that make clusters (the testbed, the catalog)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from distredge.cluster.hosts import Cluster, Provider, Requester
from distredge.cluster.hosts_values import ENCRYPTION, PROVIDER_KEYS, REQUESTER_KEYS


def format_hosts(cluster: Cluster, heading: str = "") -> str:
    """The text of a hosts file that `load_hosts` reads back as this cluster.

    Args:
        cluster: what to write. Keys that hold their default are left out.
        heading: comment for the top; may have several lines.
    """
    blocks = []
    if heading:
        blocks.append("\n".join(f"# {line}".rstrip() for line in heading.splitlines()))
    blocks.append("\n".join(["[requester]", *_lines(cluster.requester, REQUESTER_KEYS)]))
    network = []
    if cluster.access_point_mbps is not None:
        network.append(f"access_point_mbps = {cluster.access_point_mbps!r}")
    if cluster.encryption != ENCRYPTION[0]:
        network.append(f"encryption = {cluster.encryption}")
    if network:
        blocks.append("\n".join(["[network]", *network]))
    for provider in cluster.providers:
        blocks.append("\n".join([f"[provider:{provider.name}]", *_lines(provider, PROVIDER_KEYS)]))
    return "\n\n".join(blocks) + "\n"


def _lines(device: Provider | Requester, keys: tuple[str, ...]) -> Iterator[str]:
    defaults = {field.name: field.default for field in fields(device)}
    for key in keys:
        value = getattr(device, key)
        if value == defaults[key]:
            continue
        if isinstance(value, tuple):
            value = ", ".join(str(item) for item in value)
        yield f"{key} = {value}"
