"""The fab tasks: `fab deploy start status ...`, on all hosts of the hosts file in parallel.

Exit codes: 2, refused before any host was touched; 1, at least one host failed, each named with its reason,
the others done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from fabric import Connection, task
from invoke import Context
from invoke.exceptions import Exit

from distredge.cluster.hosts import Cluster, load_hosts
from distredge.errors import DistrEdgeError
from launch import deploy as deploying
from launch import peers
from launch import profile as profiling
from launch.doctor import examine
from launch.fleet import Outcome, table

_HOSTS = "hosts file (default: what DISTREDGE_HOSTS names, or hosts.ini)"
_JSON = "print JSON"
_HELP = {"hosts": _HOSTS, "as-json": _JSON}


@task(help=_HELP)
def deploy(c: Context, hosts: str = "", as_json: bool = False) -> None:
    """Bring this version to every host; nothing is sent twice."""
    _run(c, hosts, as_json, deploying.deploy)


@task(help={**_HELP, "boot": "also start them when the host boots (systemd)"})
def start(c: Context, hosts: str = "", boot: bool = False, as_json: bool = False) -> None:
    """Start the peers that do not run; they outlive this session."""
    _run(c, hosts, as_json, lambda cluster: peers.start(cluster, boot=boot))


@task(help=_HELP)
def stop(c: Context, hosts: str = "", as_json: bool = False) -> None:
    """End the peers that were started, and nothing else."""
    _run(c, hosts, as_json, peers.stop)


@task(help=_HELP)
def restart(c: Context, hosts: str = "", as_json: bool = False) -> None:
    """Stop the peers and start them again."""

    def both(cluster: Cluster) -> list[Outcome]:
        failed = {outcome.name: outcome for outcome in peers.stop(cluster) if not outcome.ok}
        return [failed.get(outcome.name, outcome) for outcome in peers.start(cluster)]

    _run(c, hosts, as_json, both)


@task(help=_HELP)
def status(c: Context, hosts: str = "", as_json: bool = False) -> None:
    """Show every peer: process, port, time, memory, version."""
    _run(c, hosts, as_json, peers.status)


@task(help={**_HELP, "lines": "how many of each peer (default: 30)"})
def logs(c: Context, hosts: str = "", lines: int = 30, as_json: bool = False) -> None:
    """Print the last lines of every peer's log."""
    outcomes = _outcomes(c, hosts, lambda cluster: peers.logs(cluster, lines))
    if not as_json:
        for outcome in outcomes:
            for line in outcome.detail or ():
                print(f"{outcome.name}: {line}")
        outcomes = [outcome for outcome in outcomes if not outcome.ok]
    _finish(outcomes, as_json)


@task(help=_HELP)
def doctor(c: Context, hosts: str = "", as_json: bool = False) -> None:
    """Examine every host, deployed or not: reachable, python, disk, ports, clock, versions, engine."""
    _run(c, hosts, as_json, examine)


@task(
    help={
        **_HELP,
        "model": "ONNX file to measure on",
        "input-shape": "as of `distredge profile`; may be repeated",
        "preprocess": "as of `distredge profile`",
        "budget-s": "about how long each device may take (default: 45)",
    },
    iterable=["input_shape"],
)
def profile(
    c: Context,
    model: str,
    input_shape: list[str],
    hosts: str = "",
    preprocess: str = "",
    budget_s: float = 45.0,
    as_json: bool = False,
) -> None:
    """Measure every device on a model, and every link; write NAME.measured.ini to plan with."""

    def operation(cluster: Cluster) -> list[Outcome]:
        return profiling.profile(
            cluster,
            Path(model),
            input_shapes=input_shape,
            preprocess=preprocess or None,
            budget_s=budget_s,
        )

    _run(c, hosts, as_json, operation)


@task(help=_HELP)
def undeploy(c: Context, hosts: str = "", as_json: bool = False) -> None:
    """Stop the peers and remove everything from the hosts."""
    _run(c, hosts, as_json, deploying.undeploy)


def _run(c: Context, hosts: str, as_json: bool, operation: Callable[[Cluster], list[Outcome]]) -> None:
    _finish(_outcomes(c, hosts, operation), as_json)


def _outcomes(c: Context, hosts: str, operation: Callable[[Cluster], list[Outcome]]) -> list[Outcome]:
    try:
        cluster = find_cluster(c, hosts)
    except DistrEdgeError as error:
        raise Exit(f"fab: {error}", code=2) from None
    try:
        return operation(cluster)
    except KeyboardInterrupt:
        raise Exit("fab: interrupted; the next run completes what this one left", code=130) from None
    except DistrEdgeError as error:
        raise Exit(f"fab: {error}", code=error.exit_code) from None


def find_cluster(c: Context, hosts: str) -> Cluster:
    """The cluster to work on; everything that can be refused is refused here.

    Raises:
        DistrEdgeError: `-H` was given, the file is wrong, or it names no real hosts.
    """
    if isinstance(c, Connection):
        raise DistrEdgeError(
            "-H is not used here: the hosts come from the hosts file; use --hosts=FILE behind the task"
        )
    path = hosts or os.environ.get("DISTREDGE_HOSTS") or "hosts.ini"
    cluster = load_hosts(path)
    for provider in cluster.providers:
        where = f"{path}:{provider.line}: [provider:{provider.name}]"
        if provider.address is None:
            raise DistrEdgeError(
                f"{where}: is simulated (it has no address); give it one, or use another file"
            )
        for key in ("identity_file", "known_hosts", "wheels_dir"):
            named = getattr(provider, key)
            if named is not None and not Path(named).exists():
                raise DistrEdgeError(f"{where} {key}: {named} does not exist; correct the path")
    return cluster


def _finish(outcomes: list[Outcome], as_json: bool) -> None:
    if as_json:
        rows = [{"name": o.name, "ok": o.ok, "text": o.text, "detail": o.detail} for o in outcomes]
        print(json.dumps(rows, indent=1))
    elif outcomes:
        rows_of_text = [(o.name, "ok" if o.ok else "FAILED", o.text) for o in outcomes]
        print(table(rows_of_text, ("host", "", "result")))
    failed = [outcome.name for outcome in outcomes if not outcome.ok]
    if failed:
        raise Exit(f"fab: failed on {', '.join(failed)}", code=1)
