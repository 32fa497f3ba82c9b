"""Peers on deployed hosts: started, stopped, looked at."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from distredge import __version__
from distredge.cluster.hosts import Cluster, Provider
from distredge.cluster.keys import is_encrypted
from distredge.errors import LaunchError
from launch.fleet import Host, Outcome, Say, on_all
from launch.session import HostSession


def peer_arguments(cluster: Cluster, device: Provider, usable: Sequence[str]) -> list[str]:
    """What follows `python -m distredge` for one device.

    Args:
        cluster: says whether connections to it are encrypted.
        device: which.
        usable: execution providers that `deploy` found to work, for a device that names none.

    Returns:
        Words in which the agent replaces `{bind}` by the address to listen on and `{folder}` by its own.
    """
    words = ["peer", "--bind", "{bind}", "--name", device.name, "--cache-dir", "{folder}/cache"]
    words += ["--keys", "{folder}/keys"] if is_encrypted(cluster, device) else ["--plain"]
    if device.threads is not None:
        words += ["--threads", str(device.threads)]
    # TensorRT works, too, but compiles for minutes: only for those who ask for it
    preferred = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in usable]
    for name in device.execution_providers or preferred:
        words += ["--execution-provider", name]
    return words


def start(cluster: Cluster, *, boot: bool = False) -> list[Outcome]:
    """Starts every peer that is not running. They outlive the session; `stop` finds them by pid file."""

    def operation(session: HostSession, host: Host, say: Say) -> list[Outcome]:
        found = []
        usable = session.ask("usable")
        for device in _devices(host):
            peer = {
                "name": device.name,
                "address": device.address,
                "port": device.port,
                "arguments": peer_arguments(cluster, device, usable),
            }
            say(f"starting {device.name}")
            found.append(_tried(session, device, "start", _started, peer=peer, environment={}, at_boot=boot))
        return found

    return on_all(cluster, "start", operation, lock=True)


def stop(cluster: Cluster) -> list[Outcome]:
    """Ends exactly the peers that `start` started."""

    def operation(session: HostSession, host: Host, say: Say) -> list[Outcome]:
        return [_tried(session, device, "stop", _stopped, name=device.name) for device in _devices(host)]

    return on_all(cluster, "stop", operation, lock=True)


def status(cluster: Cluster) -> list[Outcome]:
    """What runs on every host. A peer that does not run is no success."""

    def operation(session: HostSession, host: Host, say: Say) -> list[Outcome]:
        state = session.ask("status", address=host.first.address)
        return [_state(device, state) for device in _devices(host)]

    return on_all(cluster, "status", operation, lock=False)


def logs(cluster: Cluster, lines: int) -> list[Outcome]:
    """The last lines of every peer's log, in each outcome's detail."""

    def operation(session: HostSession, host: Host, say: Say) -> list[Outcome]:
        found = []
        for device in _devices(host):
            said = session.ask("logs", name=device.name, lines=lines)
            found.append(Outcome(device.name, True, f"{len(said)} lines", said))
        return found

    return on_all(cluster, "logs", operation, lock=False)


def _devices(host: Host) -> Sequence[Provider]:
    return [device for provider in host.providers for device in provider.devices()]


def _tried(session: HostSession, device: Provider, action: str, text: Any, **arguments: Any) -> Outcome:
    """One peer's failure keeps no other from being tried."""
    try:
        return Outcome(device.name, True, text(device, session.ask(action, **arguments)))
    except LaunchError as error:
        return Outcome(device.name, False, str(error))


def _started(device: Provider, answer: dict[str, bool]) -> str:
    return f"{'was running already' if answer['already'] else 'running'} on {device.endpoint}"


def _stopped(device: Provider, was_running: bool) -> str:
    return "stopped" if was_running else "was not running"


def _state(device: Provider, state: dict[str, Any]) -> Outcome:
    run = state["peers"].get(device.name)
    if run is None:
        text = "not running" if state["deployed"] else "not deployed"
        return Outcome(device.name, False, f"{text}; run fab {'start' if state['deployed'] else 'deploy'}")
    if not run["answers"]:
        return Outcome(
            device.name, False, f"process {run['pid']} does not listen on port {run['port']}; see fab logs"
        )
    minutes = (time.time() - run["since_s"]) / 60
    text = f"process {run['pid']} on {device.endpoint}, {minutes:.0f} min, {run['memory_bytes'] / 1e6:.0f} MB"
    if run["version"] != __version__:
        return Outcome(
            device.name, False, f"{text}, version {run['version']}, not {__version__}; fab deploy restart"
        )
    if run["release"] != state["release"]:
        text += ", of an older deployment: fab restart"
    return Outcome(device.name, True, text, run)
