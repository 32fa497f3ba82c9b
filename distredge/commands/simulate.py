"""`distredge simulate`: what a plan would do on a cluster."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from distredge.commands.options import add_model_options, load, positive
from distredge.commands.plan import add_cluster

if TYPE_CHECKING:
    from distredge.control.simulation import Simulation


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "simulate",
        help="what a plan would do on a cluster",
        description="Run a plan through the peers' own state machines on a virtual clock: latency, images a "
        "second, who computes and who waits, what binds, and how far it is from the lower bound.",
    )
    parser.add_argument("plan", metavar="PLAN", help="a plan file, from `distredge plan -o`")
    parser.add_argument(
        "--model", required=True, metavar="MODEL", help="the ONNX file that the plan was made for"
    )
    add_model_options(parser)
    add_cluster(parser)
    parser.add_argument(
        "--in-flight", type=positive, default=1, metavar="W", help="frames under way at a time (default: 1)"
    )
    parser.add_argument(
        "--frames", type=positive, metavar="N", help="frames in all (default: enough for a steady rate)"
    )
    parser.add_argument("--trace", metavar="FILE", help="write the timeline for ui.perfetto.dev, as JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw the timeline")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def run(args: argparse.Namespace) -> int:
    from distredge.cluster.load import load_cluster
    from distredge.control.simulation import simulate
    from distredge.plan.execution import ExecutionPlan

    plan = ExecutionPlan.load(args.plan)
    cluster = load_cluster(args.cluster)
    model = load(args, args.model)
    found = simulate(plan, model.graph, cluster, in_flight=args.in_flight, frames=args.frames)
    if args.trace:
        found.timeline.save_trace(args.trace)
    if args.plot:
        from distredge.plot.timeline import plot_timeline

        title = f"{model.graph.name} on {cluster.name}, simulated: {found.latency_s * 1e3:.1f} ms"
        plot_timeline(found.timeline, args.plot, title)
    if args.json:
        row = {"plan": args.plan, "model": args.model, "cluster": args.cluster, **found.to_json()}
        print(json.dumps(row))
    else:
        print(_text(args, found))
    return 0


def _text(args: argparse.Namespace, found: Simulation) -> str:
    lines = [
        f"{args.plan} on {args.cluster}, {found.in_flight} frame{'s' * (found.in_flight > 1)} under way",
        f"  latency {found.latency_s * 1e3:.2f} ms; alone {found.alone_s * 1e3:.2f} ms, {found.gap:.0%} "
        f"above the lower bound of {found.bound_s * 1e3:.2f} ms",
        f"  {found.images_per_second:.1f} images a second",
        f"  {found.binds} binds: {found.binds_share:.0%} of a frame's critical path",
    ]
    width = max([len("device"), *(len(peer.name) for peer in found.peers)])
    lines.append(
        f"  {'device':<{width}} {'busy':>10} {'waiting':>10} {'uplink':>8} {'downlink':>8}   (ms a frame)"
    )
    for peer in found.peers:
        waits = f"{peer.busy_s * 1e3:>10.2f} {peer.waiting_s * 1e3:>10.2f}"
        lines.append(f"  {peer.name:<{width}} {waits} {peer.uplink_use:>8.0%} {peer.downlink_use:>8.0%}")
    return "\n".join(lines)
