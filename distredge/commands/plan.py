"""`distredge plan`: decides how a model is split over a cluster."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from distredge.commands.options import (
    add_model_options,
    add_objective,
    add_wire,
    file_name,
    load,
    non_negative,
    positive,
    seconds,
)
from distredge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distredge.cluster.hosts import Cluster
    from distredge.control.compare import Comparison
    from distredge.graph.importer import Model
    from distredge.plan.options import PlanningOptions
    from distredge.plan.policy import PlanningProblem
    from distredge.plan.strategy import Strategy


MANY = 24
"""Devices of which those without rows are not listed."""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "plan",
        help="decide how a model is split over a cluster",
        description="Let a policy decide which rows each device computes, and print what the simulator says "
        "of it. The plan may be saved, to be simulated or run.",
    )
    parser.add_argument("model", metavar="MODEL", help="an ONNX file")
    add_model_options(parser)
    add_cluster(parser)
    parser.add_argument("--policy", default="auto", metavar="P", help="who decides (default: auto)")
    add_overlap(parser)
    parser.add_argument("--as-in-paper", action="store_true", help="osds: in the paper's form")
    add_planning(parser)
    add_wire(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="write the execution plan, as JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw the plan")
    parser.add_argument(
        "--training", metavar="FILE", help="osds: write how it learned, for `distredge plot training`"
    )
    parser.add_argument(
        "--save-actor", type=file_name, metavar="FILE", help="osds: write the trained actor, for --actor"
    )
    parser.add_argument(
        "--actor",
        metavar="FILE",
        help="osds, auto: an actor trained on this model and as many devices, which decides at once; osds "
        "fine-tunes it for the rest of the time",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def add_cluster(parser: Any, **more: Any) -> None:
    """`--cluster`; see `distredge.cluster.load.load_cluster`."""
    parser.add_argument(
        "--cluster",
        **{"required": True, **more},
        metavar="C",
        help="a hosts file whose devices have profiles, or a cluster of the catalog such as DA-NA",
    )


def add_overlap(parser: argparse.ArgumentParser) -> None:
    """`--no-overlap`, for commands whose plans are looked at."""
    parser.add_argument(
        "--no-overlap",
        dest="overlap",
        action="store_false",
        help="every device computes its rows of a volume in one part, as in the paper",
    )


def add_planning(parser: argparse.ArgumentParser) -> None:
    """`--objective`, `--seed`, `--budget-s` and `--in-flight`, for commands that let a policy decide."""
    add_objective(parser)
    parser.add_argument("--seed", type=non_negative, default=0, help="seed of everything (default: 0)")
    parser.add_argument(
        "--budget-s", type=seconds, default=2.0, metavar="T", help="time to decide in (default: 2)"
    )
    parser.add_argument(
        "--in-flight", type=positive, default=8, metavar="W", help="frames of a stream under way (default: 8)"
    )


def planning_options(args: argparse.Namespace) -> PlanningOptions:
    """What the options of `add_planning` say, and those of `add_wire` and `add_overlap` where there are any.

    Raises:
        InputError: the objective is none.
    """
    from distredge.plan.objective import Objective
    from distredge.plan.options import PlanningOptions

    names = {field.name for field in fields(PlanningOptions)} & vars(args).keys() - {"objective"}
    said = {name: getattr(args, name) for name in names}
    return PlanningOptions(**said, objective=Objective.parse(args.objective))


def run(args: argparse.Namespace) -> int:
    from distredge.cluster.load import load_cluster
    from distredge.commands.progress import progress
    from distredge.control.compare import evaluate
    from distredge.control.problem import planning_problem
    from distredge.plan.policy import get_policy

    _check_options(args)
    cluster = load_cluster(args.cluster)
    model = load(args, args.model)
    problem = planning_problem(model.graph, cluster, planning_options(args))
    with progress(quiet=args.json) as show:
        curve: list[tuple[int, float]] = []

        def learned(met: int, of: int, latency_s: float) -> None:
            curve.append((met, latency_s))
            show("training, episodes", met, of)

        policy: Any = get_policy(args.policy, **_settings(args, problem, learned))
        row = evaluate(problem, policy, model=args.model, cluster=args.cluster, in_flight=args.in_flight)
    if args.training:
        _save_training(args, curve)
    if args.save_actor:
        _save_actor(args, policy.agent)
    if row.strategy is not None and (args.output or args.plot):
        _save(args, model, cluster, row)
    if args.json:
        print(json.dumps(row.to_json()))
    else:
        print(_text(row, cluster))
    if row.strategy is None:
        return 2
    return 0 if row.sustains else 1


def _check_options(args: argparse.Namespace) -> None:
    """Raises InputError for what is another policy's."""
    of_osds = {
        "--as-in-paper": args.as_in_paper,
        "--training": args.training,
        "--save-actor": args.save_actor,
    }
    for option, given in of_osds.items():
        if given and args.policy != "osds":
            raise InputError(f"{option} is for --policy osds only")
    if args.actor and args.policy not in ("osds", "auto"):
        raise InputError("--actor is for --policy osds and auto only")


def _settings(args: argparse.Namespace, problem: PlanningProblem, progress: object) -> dict[str, object]:
    """What the policy is made with."""
    from distredge.plan.policy import get_policy

    if args.policy == "osds":
        settings: dict[str, object] = {"progress": progress}
        if args.as_in_paper:
            settings["as_in_paper"] = True
        if args.actor:
            settings["actor"] = _trained(args.actor, problem)
        return settings
    if args.actor:
        return {"others": (get_policy("osds", actor=_trained(args.actor, problem)),)}
    return {}


def _trained(file: str, problem: PlanningProblem) -> object:
    """An actor from its file, for this problem."""
    from distredge.plan.policy import get_policy

    osds: Any = get_policy("osds", actor=file)
    osds.trained.check(problem)
    return osds.trained


def _save_actor(args: argparse.Namespace, agent: Any) -> None:
    if agent is None:
        raise InputError(
            "nothing was learned in this time, so there is no actor; raise --budget-s to 10 or more"
        )
    try:
        agent.save(args.save_actor)
    except (OSError, RuntimeError) as error:
        raise InputError(f"cannot write {args.save_actor}: {error}") from error


def _save(args: argparse.Namespace, model: Model, cluster: Cluster, row: Comparison) -> None:
    from distredge.plan.compile import compile_plan
    from distredge.plot.plan import plot_plan

    assert row.strategy is not None
    plan = compile_plan(model.graph, row.strategy, cluster.names, model=model.weights_sha256, wire=args.wire)
    if args.output:
        try:
            plan.save(args.output)
        except OSError as error:
            raise InputError(f"cannot write {args.output}: {error.strerror or error}") from error
    if args.plot:
        plot_plan(plan, args.plot, f"{model.graph.name} on {cluster.name} by {row.winner or row.policy}")


def _save_training(args: argparse.Namespace, curve: list[tuple[int, float]]) -> None:
    from distredge.plot.training import Training

    if not curve:
        raise InputError(
            "nothing was learned in this time, so there is no curve; raise --budget-s to 10 or more"
        )
    title = f"{args.model} on {args.cluster}, osds{' as in the paper' * args.as_in_paper}, seed {args.seed}"
    Training(title, [met for met, _ in curve], [latency_s for _, latency_s in curve]).save(args.training)


def _text(row: Comparison, cluster: Cluster) -> str:
    if row.strategy is None or row.latency_s is None or row.gap is None:
        return f"{row.policy}: no plan: {row.error}"
    lines = [
        f"{row.model} on {row.cluster} by {row.policy}, decided in {row.planning_s:.2f} s",
        f"  latency {row.latency_s * 1e3:.2f} ms, {row.gap:.0%} above the lower bound of "
        f"{row.bound_s * 1e3:.2f} ms",
        f"  {row.images_per_second:.1f} images a second with {row.in_flight} under way",
    ]
    if row.why:
        lines.append(f"  {row.why}")
    if row.winner and row.winner != row.policy and not row.objective.is_of_stream:
        lead = f", {row.lead - 1:.1%} faster than the next" if row.lead else ""
        lines.append(f"  the strategy is that of {row.winner}{lead}")
    lines += _verdicts(row)
    for way in row.strategy.ways:
        lines += _rows(way, cluster.names)
    return "\n".join(lines)


def _verdicts(row: Comparison) -> list[str]:
    """What must be said of a plan for a stream that is not as good as was asked for."""
    found = []
    if row.loses_to:
        found.append(f"  fewer images a second than {row.loses_to}; `--policy auto` looks for the most")
    if not row.sustains:
        found.append(f"  does not sustain {row.objective.rate:g} images a second")
    return found


def _rows(strategy: Strategy, names: Sequence[str]) -> list[str]:
    """Rows of each device in each volume; those of its lanes in the order in which they run. One line where
    one of several devices computes whole frames."""
    from distredge.plan.strategy import run_order

    busy = {device for device, name in enumerate(names) if _computes(strategy, device)}
    if len(busy) == 1 and len(names) > 1:
        return [f"  whole frames: {names[busy.pop()]}"]
    order = run_order(strategy.part_devices)
    table = [["volume", *(str(volume) for volume in range(len(strategy.splits)))]]
    for device, name in enumerate(names):
        if len(names) > MANY and device not in busy:
            continue
        mine = [at for at in order if strategy.part_devices[at] == device]
        sizes = ([split.part(at).size for at in mine] for split in strategy.splits)
        table.append([name, *("+".join(str(size) for size in each if size) or "0" for each in sizes)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for name, *cells in table:
        lines.append(
            f"  {name:<{widths[0]}} "
            + " ".join(f"{c:>{max(7, w)}}" for c, w in zip(cells, widths[1:], strict=True))
        )
    if strategy.has_lanes:
        lines.append(
            "  a + b: rows computed one after the other, so that those that neighbours wait for go first"
        )
    return lines


def _computes(strategy: Strategy, device: int) -> bool:
    parts = [at for at, owner in enumerate(strategy.part_devices) if owner == device]
    return any(split.part(at) for split in strategy.splits for at in parts)
