"""`distredge verify`: proves that a model's split answers are its whole answers."""

from __future__ import annotations

import argparse
import json
from typing import Any

from distredge.commands.options import (
    add_model_options,
    add_wire,
    file_name,
    load,
    non_negative,
    peer_count,
    positive,
)


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "verify",
        help="prove that split answers equal whole ones",
        description="Run random strategies through the peers' own state machines and engine, in this "
        "process, and compare every output with the whole model in onnxruntime. Exits 1 on disagreement.",
    )
    parser.add_argument("model", metavar="MODEL", help="an ONNX file")
    add_model_options(parser)
    parser.add_argument("--peers", type=peer_count, default=3, help="devices (default: 3)")
    parser.add_argument("--strategies", type=positive, default=20, help="random strategies (default: 20)")
    add_wire(parser)
    parser.add_argument(
        "--input",
        type=file_name,
        action="append",
        default=[],
        metavar="FILE",
        help="your own input, a picture, a .npy, or a .npz by input name; repeat it for several (default: "
        "random)",
    )
    parser.add_argument("--seed", type=non_negative, default=0, help="seed of everything (default: 0)")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    return parser


def run(args: argparse.Namespace) -> int:
    from distredge.commands.progress import progress
    from distredge.control.verify import verify
    from distredge.plan.wire import ROUNDED
    from distredge.runtime.inputs import read_feed

    model = load(args, args.model)
    feeds = [read_feed(path, model) for path in args.input]
    with progress(quiet=args.json) as show:
        outcome = verify(
            model,
            peers=args.peers,
            strategies=args.strategies,
            seed=args.seed,
            wire=args.wire,
            feeds=feeds,
            progress=lambda done: show("verifying strategies", done, args.strategies),
        )
    if args.json:
        print(json.dumps({**outcome.to_json(), "model": args.model}))
    else:
        print(
            f"{args.model}: {'ok' if outcome.ok else 'WRONG'}: {outcome.strategies} strategies for "
            f"{outcome.peers} peers, {outcome.volumes} volumes, {outcome.transfers} transfers, "
            f"{outcome.zero_row_parts} parts without rows\n"
            f"  {outcome.split_share:.1%} of the work can be split; {outcome.reductions} reductions move "
            f"{outcome.reduction_bytes:,} bytes from a device at most\n"
            f"  largest error {outcome.max_abs_error:.3g}, relative {outcome.max_rel_error:.3g} "
            f"(tolerance {outcome.tolerance:g})"
            + (
                ""
                if outcome.top1 is None or args.wire not in ROUNDED
                else f"; the highest class agrees in {outcome.top1:.1%} of answers"
            )
            + (f"\n  first wrong: {outcome.wrong}" if outcome.wrong else "")
        )
    return 0 if outcome.ok else 1
