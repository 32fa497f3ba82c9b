"""`python -m launch [-n N] [--hosts FILE] -- application argument ...`, and the script launch/distrun."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__" and not __package__:
    # started by path, from any directory
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distredge.cluster.hosts import Cluster, load_hosts
from distredge.errors import DistrEdgeError, HostsError
from launch.mpi import Job, local_cluster

_LOCAL_PEERS = 2


def main(argv: list[str] | None = None) -> int:
    """Runs a job and returns the application's exit code; 2 for bad input, 1 if a peer fails."""
    parser = argparse.ArgumentParser(
        prog="distrun",
        usage="%(prog)s [-n N] [--hosts FILE] -- application argument ...",
        description="Starts a peer per slot and an application that uses them through distredge.connect(); "
        "ends all of them together.",
    )
    parser.add_argument(
        "-n", type=int, metavar="N", help="peers (default: all of the hosts file; 2 without one)"
    )
    parser.add_argument(
        "--hosts", metavar="FILE", help="hosts file; its hosts are deployed (default: this machine)"
    )
    parser.add_argument("application", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    words = options.application[1:] if options.application[:1] == ["--"] else options.application
    if not words:
        parser.error("name the application behind --: distrun -n 4 -- python my_app.py")
    if options.n is not None and options.n < 1:
        parser.error(f"-n {options.n}: at least one peer is needed")
    try:
        return Job(_cluster(options.hosts, options.n), words).run()
    except DistrEdgeError as error:
        print(f"distrun: {error}", file=sys.stderr)
        return error.exit_code


def _cluster(hosts: str | None, count: int | None) -> Cluster:
    if hosts is None:
        return local_cluster(count or _LOCAL_PEERS)
    cluster = load_hosts(hosts)
    if cluster.is_simulated:
        raise HostsError(f"{hosts}: a provider has no address, so nothing can run there; give it one")
    if count is None:
        return cluster
    if count > len(cluster.devices):
        raise HostsError(f"{hosts}: has {len(cluster.devices)} slots, not {count}; add hosts or raise slots")
    return replace(cluster, providers=cluster.devices[:count])


if __name__ == "__main__":
    sys.exit(main())
