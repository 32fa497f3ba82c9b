"""`distredge inspect`: what of a model can be split, and why the rest cannot."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from distredge.commands.options import add_model_options, load

if TYPE_CHECKING:
    from distredge.graph.model import Graph, Node


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "inspect",
        help="print what of a model can be split",
        description="Print the share of the work that can be split by rows or features, where the depth can "
        "be cut, what runs whole on one device, and why.",
    )
    parser.add_argument("model", metavar="MODEL", help="an ONNX file")
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="everything, as JSON on stdout")
    return parser


def run(args: argparse.Namespace) -> int:
    graph = load(args, args.model).graph
    facts = {"model": args.model, **describe(graph)}
    print(json.dumps(facts, indent=2) if args.json else _text(facts))
    return 0


def describe(graph: Graph) -> dict[str, Any]:
    """The facts of the report, ready for JSON."""
    tail = [graph.nodes[i] for i in sorted(graph.tail)]
    barriers = [node for node in graph.nodes if _kind(node) == "barrier"]
    return {
        "split_share": graph.split_share,
        "gmacs": sum(node.macs for node in graph.nodes) / 1e9,
        "inputs": [_tensor(graph, name) for name in graph.inputs],
        "outputs": [_tensor(graph, name) for name in graph.outputs],
        "nodes": len(graph.nodes),
        "rules": dict(Counter(_kind(node) for node in graph.nodes).most_common()),
        "max_volumes": len(graph.cut_points) + 1,
        "cut_points": [_tensor(graph, name) for name in graph.cut_points],
        "reductions": [
            {"node": node.source, "op_type": node.op_type} for node in graph.nodes if node.form == "partial"
        ],
        "barriers": [
            {"node": node.source, "op_type": node.op_type, "reason": node.reason} for node in barriers
        ],
        "features": [
            {"node": node.source, "op_type": node.op_type, "macs": node.macs}
            for node in graph.nodes
            if node.rule.kind == "features"
        ],
        "tail": [{"node": node.source, "op_type": node.op_type, "macs": node.macs} for node in tail],
    }


def _kind(node: Node) -> str:
    """The rule's kind; `whole` for what has no rows to split, as between a reduction and its Mul."""
    return "whole" if node.rule.kind == "barrier" and not node.reason else node.rule.kind


def _tensor(graph: Graph, name: str) -> dict[str, Any]:
    tensor = graph.tensors[name]
    return {
        "name": name,
        "shape": None if tensor.dynamic else list(tensor.shape),
        "dtype": tensor.dtype,
        "row_axis": tensor.row_axis,
        "rows": tensor.rows if tensor.row_axis is not None else None,
    }


def _text(facts: dict[str, Any]) -> str:
    lines = [
        f"{facts['model']}: {facts['split_share']:.1%} of {facts['gmacs']:.3g} GMACs can be split"
        + (" by rows and features" if facts["features"] else " by rows"),
        *(f"  input   {_tensor_text(tensor)}" for tensor in facts["inputs"]),
        *(f"  output  {_tensor_text(tensor)}" for tensor in facts["outputs"]),
        f"  nodes   {facts['nodes']}: "
        + ", ".join(f"{count} {kind}" for kind, count in facts["rules"].items()),
        _list(
            f"  cuts    {len(facts['cut_points'])} possible, so up to {facts['max_volumes']} volumes",
            [tensor["name"] for tensor in facts["cut_points"]],
        ),
    ]
    if facts["reductions"]:
        names = [node["node"] for node in facts["reductions"]]
        lines.append(_list(f"  reductions over rows: {len(names)}; devices exchange partial results", names))
    lines += [f"  barrier {node['node']} ({node['op_type']}): {node['reason']}" for node in facts["barriers"]]
    if facts["features"]:
        names = [f"{node['node']} ({node['op_type']})" for node in facts["features"]]
        title = f"  fully connected layers shared out by output features, weights too: {len(names)}"
        lines.append(_list(title, names))
    if facts["tail"]:
        macs = sum(node["macs"] for node in facts["tail"])
        lines.append(
            _list(
                f"  tail    {len(facts['tail'])} nodes run whole on one device ({macs / 1e9:.3g} GMACs)",
                [f"{node['node']} ({node['op_type']})" for node in facts["tail"]],
            )
        )
    return "\n".join(lines)


def _tensor_text(tensor: dict[str, Any]) -> str:
    sizes, axis = tensor["shape"], tensor["row_axis"]
    shape = "(its shape depends on the data)" if sizes is None else "x".join(map(str, sizes))
    split = "whole" if axis is None else f"{tensor['rows']} rows along axis {axis}"
    return f"{tensor['name']} {shape} {tensor['dtype']}, {split}"


def _list(title: str, names: list[str], most: int = 12) -> str:
    """The title and the names behind it; of a long list, the beginning and the end."""
    if len(names) > most:
        names = [*names[: most - 1], f"... {len(names) - most} more ...", names[-1]]
    return f"{title}: {', '.join(names)}" if names else title
