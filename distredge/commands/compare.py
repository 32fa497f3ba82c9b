"""`distredge compare`: policies × models × clusters."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distredge.commands.options import add_model_options, add_wire, load, positive
from distredge.commands.plan import add_cluster, add_overlap, add_planning, planning_options
from distredge.errors import InputError

if TYPE_CHECKING:
    from distredge.cluster.hosts import Cluster
    from distredge.control.compare import Comparison
    from distredge.plan.policy import Policy

DEFAULT = (
    "offload,modnn,mednn,coedge,deepthings,deeperthings,aofl,equal,proportional,lcpss,replicate,search,auto"
)


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "compare",
        help="compare policies on models and clusters",
        description="Let policies decide for each model on each cluster, and print what the simulator says.",
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="ONNX files")
    where = parser.add_mutually_exclusive_group(required=True)
    add_cluster(where, nargs="+", required=False)
    where.add_argument("--hosts", metavar="FILE", help="a hosts file whose peers are running")
    parser.add_argument(
        "--measure", action="store_true", help="with --hosts: also run every strategy there, interleaved"
    )
    parser.add_argument(
        "--rounds", type=positive, default=3, help="with --measure: turns of each strategy (default: 3)"
    )
    add_model_options(parser)
    parser.add_argument(
        "--policies", default=DEFAULT, metavar="P,P", help="who decides (default: all but osds, which trains)"
    )
    add_planning(parser)
    add_wire(parser)
    add_overlap(parser)
    parser.add_argument("--json", action="store_true", help="a list of rows on stdout")
    parser.add_argument("--plot", metavar="FILE", help="a picture of the latencies")
    return parser


def run(args: argparse.Namespace) -> int:
    from distredge.cluster.load import load_cluster
    from distredge.control.compare import compare
    from distredge.plan.policy import get_policy

    policies = [get_policy(name.strip()) for name in args.policies.split(",") if name.strip()]
    clusters = [load_cluster(name) for name in args.cluster or [args.hosts]]
    if args.measure:
        return _measure(args, clusters[0], policies)
    models = {name: load(args, name).graph for name in args.models}
    rows = []
    for row in compare(models, clusters, policies, planning_options(args)):
        rows.append(row)
        if not args.json:
            if len(rows) == 1:
                print(_HEADER)
            print(_line(row), flush=True)
    if args.json:
        json.dump([row.to_json() for row in rows], sys.stdout, indent=1)
        print()
    if args.plot:
        _plot(rows, args.plot)
    return 0


def _measure(args: argparse.Namespace, cluster: Cluster, policies: list[Policy]) -> int:
    from distredge.commands.progress import progress
    from distredge.control.compare_measured import compare_measured

    if not args.hosts:
        raise InputError("--measure runs on real devices: name their file with --hosts instead of --cluster")
    rows: list[Comparison] = []
    for name in args.models:
        with progress(quiet=args.json) as show:
            found = compare_measured(
                load(args, name),
                cluster,
                policies,
                planning_options(args),
                rounds=args.rounds,
                progress=partial(show, f"{Path(name).stem}: turns on the peers"),
            )
        rows += found
        if not args.json:
            print(f"{Path(name).stem} on {cluster.name}, milliseconds: measured, predicted, error; images/s")
            for row in found:
                print(_measured_line(row), flush=True)
    if args.json:
        json.dump([row.to_json() for row in rows], sys.stdout, indent=1)
        print()
    if args.plot:
        _plot(rows, args.plot)
    return 0


def _measured_line(row: Comparison) -> str:
    if row.latency_s is None or row.measured_latency_s is None:
        return f"  {row.policy:<13} {row.error}"
    error = row.latency_s / row.measured_latency_s - 1
    rate = row.measured_images_per_second
    return (
        f"  {row.policy:<13} {row.measured_latency_s * 1e3:>9.1f} {row.latency_s * 1e3:>9.1f} {error:>+7.1%} "
        f"{f'{rate:.1f}' if rate else '-':>8}"
    )


_HEADER = (
    f"{'model':<16} {'cluster':<8} {'policy':<13} {'latency ms':>10} {'gap':>6} {'images/s':>9} "
    f"{'planning s':>10}"
)


def _line(row: Comparison) -> str:
    start = f"{Path(row.model).stem:<16} {row.cluster:<8} {row.policy:<13}"
    if row.latency_s is None or row.gap is None:
        return f"{start} {row.error}"
    winner = f"  {row.winner}" if row.winner != row.policy else ""
    return (
        f"{start} {row.latency_s * 1e3:>10.2f} {row.gap:>6.0%} {row.images_per_second:>9.1f} "
        f"{row.planning_s:>10.2f}{winner}"
    )


def _plot(rows: list[Comparison], path: str) -> None:
    """Latency over the bound, one line of marks per policy, one column per model and cluster."""
    from distredge.plot.comparison import plot_comparison

    plot_comparison([row.to_json() for row in rows], path)
