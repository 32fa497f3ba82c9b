"""Examines hosts, deployed or not."""

from __future__ import annotations

import json
import time
from typing import Any

from distredge import __version__
from distredge.cluster.hosts import Cluster, Provider
from distredge.errors import LaunchError
from launch.deploy import CHECK_ENGINE, choose_engine
from launch.fleet import Host, Outcome, Say, on_all
from launch.session import HostSession

NEEDED_BYTES = 400_000_000
"""Room for an environment on the CPU and its wheels."""
CLOCK_S = 2.0
"""More than that and times in logs of several hosts cannot be compared."""


def examine(cluster: Cluster) -> list[Outcome]:
    """Reachable, python, disk, ports, clock, versions, and whether the execution provider really works."""

    def operation(session: HostSession, host: Host, say: Say) -> list[Outcome]:
        sent_s = time.time()
        facts = session.ask("facts")
        offset_s = facts["time_s"] - (sent_s + time.time()) / 2
        state = session.ask("status", address=host.first.address)
        return [_examined(session, provider, facts, state, offset_s) for provider in host.providers]

    return on_all(cluster, "doctor", operation, lock=False)


def _examined(
    session: HostSession, provider: Provider, facts: dict[str, Any], state: dict[str, Any], offset_s: float
) -> Outcome:
    good = [f"{facts['machine']}, {facts['cores']} cores", f"Python {facts['python']}"]
    bad = []
    if not facts["glibc"]:
        bad.append("its C library is not glibc, for which wheels are made")
    free = facts["free_bytes"]
    if free < NEEDED_BYTES and not state["release"]:
        bad.append(f"{free / 1e6:.0f} MB free in {facts['folder']}; {NEEDED_BYTES / 1e6:.0f} are needed")
    else:
        good.append(f"{free / 1e9:.1f} GB free")
    if not facts["writable"]:
        bad.append(f"no right to write to {facts['folder']}; set deploy_dir or ssh_user")
    if abs(offset_s) > CLOCK_S:
        bad.append(f"its clock is off by {offset_s:.0f} s; set it (timedatectl set-ntp true)")
    bad += _ports(session, provider, state)
    text, problem = _version(state, facts)
    (bad if problem else good).append(text)
    text, problem = _engine(session, provider, facts, state)
    (bad if problem else good).append(text)
    line = "; ".join(bad) if bad else ", ".join(good)
    return Outcome(
        provider.name, not bad, line, {"facts": facts, "clock_offset_s": offset_s, "problems": bad}
    )


def _ports(session: HostSession, provider: Provider, state: dict[str, Any]) -> list[str]:
    own = {run["port"] for run in state["peers"].values()}
    wanted = [port for port in provider.ports if port not in own]
    holders = session.ask_plain("ports", address=provider.address, numbers=wanted)
    return [f"port {port} is taken by {holder}" for port, holder in holders.items() if holder]


def _version(state: dict[str, Any], facts: dict[str, Any]) -> tuple[str, bool]:
    if not state["release"]:
        return "not deployed yet", False
    if facts["version"] != __version__:
        return f"version {facts['version']} is deployed, {__version__} is here; run fab deploy", True
    return f"version {facts['version']}", False


def _engine(
    session: HostSession, provider: Provider, facts: dict[str, Any], state: dict[str, Any]
) -> tuple[str, bool]:
    """What would compute there: proven by a session that opens, guessed from files before deploying."""
    if not state["release"]:
        engine, remark = choose_engine(provider, facts)
        return remark or f"{engine} will be installed", False
    named = list(provider.execution_providers)
    try:
        found = session.ask("python_run", code=CHECK_ENGINE, arguments=[json.dumps(named)])
    except LaunchError as error:
        return f"onnxruntime does not work: {error}; run fab deploy", True
    refused = [name for name in named if name not in found["usable"]]
    if refused or not found["usable"]:
        return f"not usable here: {', '.join(refused) or 'any execution provider'}", True
    return f"onnxruntime {found['version']} with {found['usable'][0]}", False
