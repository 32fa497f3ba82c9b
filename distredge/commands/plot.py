"""`distredge plot`: pictures of plans, timelines, comparisons, training and profiles."""

from __future__ import annotations

import argparse
from typing import Any

from distredge.commands.options import add_model_options, load, positive
from distredge.commands.plan import add_cluster


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "plot",
        help="draw what other commands wrote",
        description="Draw a picture, PNG, SVG or PDF by its ending. What there is to draw comes from files "
        "that other commands write; most of them can also draw themselves (--plot).",
    )
    kinds = parser.add_subparsers(title="pictures", metavar="PICTURE", required=True, dest="picture")
    _add(kinds, "plan", "which rows each device has", "PLAN", "a plan file, from `distredge plan -o`")
    timeline = _add(kinds, "timeline", "what happens when, simulated", "PLAN", "a plan file")
    timeline.add_argument("--model", required=True, metavar="MODEL", help="what the plan was made for")
    add_model_options(timeline)
    add_cluster(timeline)
    timeline.add_argument(
        "--in-flight", type=positive, default=1, metavar="W", help="frames under way at a time (default: 1)"
    )
    _add(kinds, "comparison", "bars of policies", "ROWS", "what `distredge compare --json` printed")
    _add(kinds, "training", "how an agent learned", "CURVE", "from `distredge plan --policy osds --training`")
    about = "a file of `distredge profile`; or, with --model, a device of the catalog"
    profile = _add(kinds, "profile", "rows -> milliseconds of a device", "PROFILE", about)
    profile.add_argument("--model", metavar="MODEL", help="an ONNX file, for a device of the catalog")
    add_model_options(profile)
    return parser


def _add(kinds: Any, name: str, text: str, file: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser(name, help=text, description=f"Draw {text}.")
    parser.add_argument("file", metavar=file, help=about)
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the picture: .png, .svg, .pdf")
    return parser


def run(args: argparse.Namespace) -> int:
    draw = {
        "plan": _plan,
        "timeline": _timeline,
        "comparison": _comparison,
        "training": _training,
        "profile": _profile,
    }
    draw[args.picture](args)
    return 0


def _plan(args: argparse.Namespace) -> None:
    from distredge.plan.execution import ExecutionPlan
    from distredge.plot.plan import plot_plan

    plot_plan(ExecutionPlan.load(args.file), args.output)


def _timeline(args: argparse.Namespace) -> None:
    from distredge.cluster.load import load_cluster
    from distredge.control.simulation import simulate
    from distredge.plan.execution import ExecutionPlan
    from distredge.plot.timeline import plot_timeline

    plan, cluster = ExecutionPlan.load(args.file), load_cluster(args.cluster)
    graph = load(args, args.model).graph
    found = simulate(plan, graph, cluster, in_flight=args.in_flight, frames=args.in_flight)
    title = f"{graph.name} on {cluster.name}, simulated: {found.latency_s * 1e3:.1f} ms"
    plot_timeline(found.timeline, args.output, title)


def _comparison(args: argparse.Namespace) -> None:
    from distredge.plot.comparison import plot_comparison, read_rows

    plot_comparison(read_rows(args.file), args.output)


def _training(args: argparse.Namespace) -> None:
    from distredge.plot.training import Training, plot_training

    plot_training(Training.load(args.file), args.output)


def _profile(args: argparse.Namespace) -> None:
    from distredge.cluster.catalog import device
    from distredge.cluster.profile import load_profile
    from distredge.plot.profile import plot_profile, plot_times

    if args.model is None:
        plot_profile(load_profile(args.file), args.output)
        return
    graph = load(args, args.model).graph
    plot_times(device(args.file).on(graph), graph, args.output)
