"""Where a program's peers are, as the launcher that started it says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from distredge.errors import HostsError
from distredge.graph.importer import Model
from distredge.runtime.session import InferenceSession

HOSTS_VARIABLE, PEERS_VARIABLE = "DISTREDGE_HOSTS", "DISTREDGE_PEERS"


def connect(model: str | Path | bytes | Model, **settings: Any) -> InferenceSession:
    """A session on the peers that the environment names: the hosts file DISTREDGE_HOSTS, or as many local
    peers as DISTREDGE_PEERS says. The launcher sets them for the application that it starts.

    Args:
        model: as for InferenceSession.
        settings: of InferenceSession; `hosts` or `local_peers` go before the environment.

    Raises:
        HostsError: neither is set.
    """
    if "hosts" not in settings and "local_peers" not in settings:
        hosts, peers = os.environ.get(HOSTS_VARIABLE), os.environ.get(PEERS_VARIABLE)
        if hosts:
            settings["hosts"] = hosts
        elif peers and peers.isdecimal() and int(peers):
            settings["local_peers"] = int(peers)
        else:
            raise HostsError(
                f"set {HOSTS_VARIABLE} to a hosts file, or {PEERS_VARIABLE} to a number of peers"
            )
    return InferenceSession(model, **settings)
