"""`distredge zoo`: writes models to try things with."""

from __future__ import annotations

import argparse
import json
from typing import Any

from distredge.commands.options import add_input_shape, named_input_shapes, non_negative, parse_input_shapes
from distredge.errors import DistrEdgeError


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "zoo",
        help="write a model with seeded random weights",
        description="Write a model of the zoo to a file, or list the zoo.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="which model; see --list")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write it (default: NAME.onnx)")
    parser.add_argument("--seed", type=non_negative, default=0, help="seed of the weights (default: 0)")
    add_input_shape(parser)
    parser.add_argument("--list", action="store_true", help="list the models and exit")
    parser.add_argument("--json", action="store_true", help="with --list: as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    from distredge.graph import zoo

    if args.list:
        rows = [_row(model) for model in zoo.models()]
        print(json.dumps(rows, indent=2) if args.json else _table(rows))
        return 0
    if not args.name:
        raise DistrEdgeError("zoo: name a model, or use --list")
    model = zoo.get(args.name)
    shapes = named_input_shapes(parse_input_shapes(args.input_shape), [model.input])
    output = args.output or f"{model.name}.onnx"
    zoo.write(model.build(shapes.get(model.input), args.seed), output)
    print(output)
    return 0


def _row(model: Any) -> dict[str, Any]:
    return {
        "name": model.name,
        "description": model.description,
        "inputs": {model.input: [size or None for size in model.shape]},
        "gmacs": round(model.macs / 1e9, 6),
        "parameters": model.parameters,
        "source": model.source,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'name':<15} {'input':>15} {'GMACs':>8} {'parameters':>12}  description"]
    for row in rows:
        (shape,) = row["inputs"].values()
        size = "x".join(str(dim or "?") for dim in shape)
        numbers = f"{row['gmacs']:>8.3f} {row['parameters']:>12,}"
        lines.append(f"{row['name']:<15} {size:>15} {numbers}  {row['description']}")
    return "\n".join(lines)
