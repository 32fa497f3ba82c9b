"""`distredge run`: streams frames through peers, and measures."""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

from distredge.commands.options import (
    add_model_options,
    add_objective,
    add_wire,
    file_name,
    non_negative,
    peer_count,
    positive,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from distredge.runtime.engine import Array
    from distredge.runtime.session import InferenceSession

WARM_UP = 3
"""Frames that are not counted."""
CHECK_TOLERANCE = 1e-3
"""Of each output's largest magnitude. Rounding differs by far less, a misplaced row by far more."""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "run",
        help="run a model on peers",
        description="Run frames of a model on local peers, which are started and stopped, or on the running "
        "peers of a hosts file. With --check, exits 1 if the answer is not that of onnxruntime.",
    )
    parser.add_argument("model", metavar="MODEL", help="an ONNX file")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--peers", type=peer_count, help="local peers to start (default: 2)")
    where.add_argument("--hosts", metavar="FILE", help="hosts file whose peers are running")
    add_model_options(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--policy",
        metavar="P",
        help="who decides (default: proportional; auto for an --objective of streams)",
    )
    how.add_argument("--plan", metavar="FILE", help="a plan that was saved, instead of a policy")
    add_objective(parser)
    parser.add_argument(
        "--input",
        type=file_name,
        metavar="FILE",
        help="a picture, a .npy, or a .npz by input name (default: seeded random)",
    )
    parser.add_argument("--frames", type=positive, default=10, help="frames to measure (default: 10)")
    parser.add_argument("--in-flight", type=positive, default=1, metavar="W", help="at once (default: 1)")
    parser.add_argument(
        "--threads", type=non_negative, default=1, help="in each local peer; 0 for all cores (default: 1)"
    )
    parser.add_argument(
        "--output", type=file_name, metavar="FILE", help="write the outputs, as a .npz by output name"
    )
    add_wire(parser, default=None)
    parser.add_argument("--check", action="store_true", help="compare with onnxruntime on the whole model")
    parser.add_argument(
        "--strict", action="store_true", help="end at the loss of a peer, instead of going on"
    )
    parser.add_argument(
        "--view",
        nargs="?",
        const="127.0.0.1:8080",
        metavar="HOST:PORT",
        help="serve a page that shows what the peers do (default: 127.0.0.1:8080)",
    )
    parser.add_argument("--seed", type=non_negative, default=0, help="seed of everything (default: 0)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def run(args: argparse.Namespace) -> int:
    from distredge.commands.options import model_source, named_input_shapes, parse_input_shapes
    from distredge.commands.progress import progress
    from distredge.graph.importer import load_model, model_inputs
    from distredge.plan.objective import Objective
    from distredge.plan.wire import ROUNDED
    from distredge.runtime.feeds import check_feed
    from distredge.runtime.inputs import check_output, read_arrays, read_picture, write_outputs
    from distredge.runtime.reference import random_feed
    from distredge.runtime.session import InferenceSession

    if args.output:
        check_output(args.output)
    source = model_source(args, args.model)
    infos = model_inputs(source)
    names = tuple(info.name for info in infos)
    shapes = named_input_shapes(parse_input_shapes(args.input_shape), names)
    feed = read_arrays(args.input, names) if args.input else None
    if feed is not None:
        feed = check_feed(infos, feed)
        shapes = {name: array.shape for name, array in feed.items()} | shapes
    model = load_model(source, shapes)
    inputs = {name: model.graph.tensors[name] for name in model.graph.inputs}
    if feed is None and args.input:
        feed = read_picture(args.input, inputs)
    if feed is None:
        feed = random_feed({name: (t.shape, t.dtype) for name, t in inputs.items()}, args.seed)
    with (
        progress(quiet=args.json) as show,
        InferenceSession(
            model,
            local_peers=None if args.hosts else args.peers,
            hosts=args.hosts,
            policy=args.policy,
            objective=args.objective,
            plan=args.plan,
            threads=args.threads,
            seed=args.seed,
            recover=not args.strict,
            progress=show,
            view=args.view,
            wire=args.wire,
        ) as session,
    ):
        if args.view:
            print(f"view {session.view_url}", file=sys.stderr, flush=True)
        outputs, facts = measure(session, feed, args.frames, args.in_flight, partial(show, "frames"))
        wire = session.wire
    policy = args.plan or args.policy or Objective.parse(args.objective).policy
    facts = {"model": args.model, "policy": policy, "wire": wire, **facts}
    wrong = False
    if args.check or wire in ROUNDED:
        wrong = _check(model.source, feed, outputs, facts) and args.check
    if args.output:
        write_outputs(args.output, [info.name for info in model.output_infos], outputs)
    print(json.dumps(facts) if args.json else _text(facts))
    return 1 if wrong else 0


def measure(
    session: InferenceSession,
    feed: Mapping[str, Array],
    frames: int,
    in_flight: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[list[Array], dict[str, Any]]:
    """Streams one feed again and again.

    Returns:
        The outputs of the last frame, and what was measured.
    """
    import numpy as np

    from distredge.plan.share import planned_split_share

    for _ in session.stream(repeat(feed, max(WARM_UP, in_flight)), in_flight):
        pass
    outputs: list[Array] = []
    start = time.perf_counter()
    for done, outputs in enumerate(session.stream(repeat(feed, frames), in_flight), 1):  # noqa: B007 (kept)
        progress(done, frames)
    spent_s = time.perf_counter() - start
    latencies = [times.latency_s for times in session.frame_times[-frames:]]
    return outputs, {
        "peers": len(session.plan.devices),
        "frames": frames,
        "in_flight": in_flight,
        "images_per_second": frames / spent_s,
        "latency_s": {"median": float(np.median(latencies)), "p95": float(np.quantile(latencies, 0.95))},
        "ways": len(session.plan.ways),
        "planned_split_share": planned_split_share(session.model.graph, session.plan.strategy),
    }


def _check(source: Any, feed: Mapping[str, Array], outputs: list[Array], facts: dict[str, Any]) -> bool:
    """Adds the errors to the facts; returns whether the answer is wrong."""
    from distredge.plan.wire import ROUNDED
    from distredge.runtime.reference import WIRE_TOLERANCE, WholeModel, difference, top_classes

    expected = WholeModel(source).run(feed)
    found = difference(outputs, expected)
    agree, classes = top_classes(outputs, expected)
    facts["max_abs_error"] = found.absolute
    facts["max_rel_error"] = found.relative
    facts["tolerance"] = WIRE_TOLERANCE.get(facts["wire"], CHECK_TOLERANCE)
    if classes and facts["wire"] in ROUNDED:
        facts["top1"] = agree / classes
    return not found.relative <= facts["tolerance"]


def _text(facts: dict[str, Any]) -> str:
    from distredge.plan.wire import ROUNDED

    latency = facts["latency_s"]
    lines = [
        f"{facts['model']} on {facts['peers']} peer{'s' * (facts['peers'] != 1)} by {facts['policy']}: "
        f"{facts['planned_split_share']:.1%} of the work is split",
        f"  {facts['images_per_second']:.1f} images a second over {facts['frames']} frames, "
        f"{facts['in_flight']} in flight",
        f"  latency {latency['median'] * 1e3:.2f} ms median, {latency['p95'] * 1e3:.2f} ms in 95 of 100",
    ]
    if "max_abs_error" in facts:
        verdict = "as onnxruntime" if facts["max_rel_error"] <= facts["tolerance"] else "WRONG"
        if facts["wire"] in ROUNDED:
            verdict = f"on the wire {facts['wire']}, against onnxruntime"
        lines.append(
            f"  {verdict}: largest error {facts['max_abs_error']:.3g}, relative {facts['max_rel_error']:.3g}"
            + (f"; the highest class agrees in {facts['top1']:.1%} of answers" if "top1" in facts else "")
        )
    return "\n".join(lines)
