"""`distredge advise`: before buying or wiring anything."""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import TYPE_CHECKING, Any

from distredge.commands.options import add_model_options, load
from distredge.commands.plan import add_planning, planning_options

if TYPE_CHECKING:
    from distredge.control.advise import Advice, Price


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "advise",
        help="what these devices would bring together, and what would help",
        description="Whether devices together beat the best of them alone, by how much, what binds, and "
        "what one more device or a faster link would bring. Simulated, from the devices' profiles: those "
        "measured by `distredge profile`, or synthetic ones of the catalog.",
    )
    parser.add_argument("model", metavar="MODEL", help="an ONNX file")
    add_model_options(parser)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--hosts", metavar="FILE", help="a hosts file whose devices have profiles")
    where.add_argument("--cluster", metavar="C", help="a cluster of the catalog such as DA-NA")
    add_planning(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def run(args: argparse.Namespace) -> int:
    from distredge.cluster.hosts import load_hosts
    from distredge.cluster.load import load_cluster
    from distredge.commands.progress import progress
    from distredge.control.advise import advise

    cluster = load_hosts(args.hosts) if args.hosts else load_cluster(args.cluster)
    model = load(args, args.model)
    with progress(quiet=args.json) as show:
        found = advise(model.graph, cluster, planning_options(args), progress=partial(show, "planning"))
    print(json.dumps(found.to_json()) if args.json else _text(found, args.in_flight))
    return 0


def _text(found: Advice, in_flight: int) -> str:
    from distredge.control.advise import WORTH

    together, alone = found.together, found.alone
    frame = _gain(found.latency_gain, "sooner", WORTH, found.best)
    stream = _gain(found.stream_gain, "the images a second", WORTH, found.best)
    lines = [
        f"{found.model} on {found.cluster}, simulated from {_profiles(found)}",
        "",
        f"  {'':<22} {'one frame':>12} {'stream':>18}",
        _row(f"{found.best} alone", alone),
        _row("all together", together),
        "",
        f"One frame: {frame}; {len(together.devices)} of {_all(found)} devices compute.",
        f"  {together.latency_binds} binds: {together.latency_share:.0%} of the critical path",
        f"Stream of {in_flight}: {stream}{', frames dealt out whole' if together.replicated else ''}.",
        f"  {together.stream_binds} binds: busy {together.stream_share:.0%} of the time",
    ]
    if found.changes:
        lines += ["", "What would change:"]
    for change in found.changes:
        sooner = together.latency_s / change.latency_s
        more = change.images_per_second / together.images_per_second
        lines.append(
            f"  {change.what:<42} {change.latency_s * 1e3:>9.2f} ms {_change(sooner, WORTH):>8} "
            f"{change.images_per_second:>9.1f}/s {_change(more, WORTH):>8}"
        )
    return "\n".join(lines)


def _row(name: str, price: Price) -> str:
    return f"  {name:<22} {price.latency_s * 1e3:>9.2f} ms {price.images_per_second:>9.1f} images/s"


def _gain(gain: float, what: str, worth: float, best: str) -> str:
    return f"{gain:.2f} times {what}" if gain >= worth else f"no gain over {best} alone"


def _change(factor: float, worth: float) -> str:
    return f"x{factor:.2f}" if factor >= worth else "same"


def _all(found: Advice) -> int:
    return len(found.measured) + len(found.synthetic)


def _profiles(found: Advice) -> str:
    if not found.synthetic:
        return "measured profiles"
    if not found.measured:
        return "synthetic profiles: no device was measured"
    return f"measured profiles, but synthetic ones of {', '.join(found.synthetic)}"
