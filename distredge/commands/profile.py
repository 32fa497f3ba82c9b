"""`distredge profile`: measures this machine on a model."""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from distredge.commands.options import add_model_options, load, positive, seconds

if TYPE_CHECKING:
    from distredge.cluster.profile import DeviceProfile
    from distredge.graph.model import Graph


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "profile",
        help="measure how fast this machine computes a model",
        description="Measure rows -> seconds for each segment of the model, with the sessions that a peer "
        "uses. The file is what a device's `profile` in a hosts file names.",
    )
    parser.add_argument("model", metavar="MODEL", help="an ONNX file")
    add_model_options(parser)
    parser.add_argument("--threads", type=positive, default=1, help="of the inference engine (default: 1)")
    parser.add_argument(
        "--budget-s", type=seconds, default=45.0, metavar="T", help="about how long it may take (default: 45)"
    )
    parser.add_argument("--name", default="this", help="the device's name in the file (default: this)")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the profile (default: NAME.profile.json, NAME the model's)"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the profile")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from distredge.commands.progress import progress
    from distredge.errors import InputError
    from distredge.runtime.message_cost import measure_message_s
    from distredge.runtime.profiling import measure_profile

    model = load(args, args.model)
    output = args.output or str(Path(args.model).with_suffix(".profile.json").name)
    if Path(output).is_dir() or not Path(output).parent.is_dir():
        raise InputError(f"cannot write {output}: it is a folder, or its folder is missing")
    start = time.perf_counter()
    with progress(quiet=args.json) as show:
        tell = partial(show, "measuring segments")
        profile = measure_profile(
            model, threads=args.threads, budget_s=args.budget_s, device=args.name, progress=tell
        )
        show("measuring messages", 0, 1)
        message_ms = 1e3 * measure_message_s()
    took = time.perf_counter() - start
    try:
        profile.save(output)
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror or error}") from error
    if args.plot:
        from distredge.plot.profile import plot_profile

        plot_profile(profile, args.plot)
    row = {"output": output, "took_s": round(took, 2), **_summary(profile, model.graph)}
    row["message_ms"] = round(message_ms, 4)
    if args.json:
        print(json.dumps(row))
    else:
        print(
            f"{output}: {row['segments']} segments at {row['row_counts']} row counts in {took:.1f} s\n"
            f"  all segments one after the other {row['seconds'] * 1e3:.1f} ms, spread {row['spread']:.1%}\n"
            f"  each task {row['boundary_fixed_s'] * 1e6:.0f} us, each megabyte that it takes or gives "
            f"{row['boundary_s_per_byte'] * 1e12:.0f} us\n"
            f"  each message {message_ms * 1e3:.0f} us: `fixed_ms = {message_ms:.3f}` in a hosts file"
        )
    return 0


def _summary(profile: DeviceProfile, graph: Graph) -> dict[str, Any]:
    """Totals; the spread is half of what lies between the tenth and the ninetieth percentile."""
    from distredge.cluster.segment import segment_rows

    totals = {
        quantile: sum(
            float(profile.table(nodes, segment_rows(graph, nodes), quantile)[-1])
            for nodes in profile.segments
        )
        for quantile in (0.1, 0.5, 0.9)
    }
    return {
        "segments": len(profile.segments),
        "row_counts": sum(len(samples.rows) for samples in profile.segments.values()),
        "seconds": totals[0.5],
        "spread": (totals[0.9] - totals[0.1]) / 2 / totals[0.5] if totals[0.5] else 0.0,
        "boundary_fixed_s": profile.boundary_fixed_s,
        "boundary_s_per_byte": profile.boundary_s_per_byte,
        "coding_s_per_byte": {coding: list(ends) for coding, ends in profile.coding_s_per_byte.items()},
        "threads": profile.threads,
        "machine": profile.machine,
        "graph": profile.graph,
    }
