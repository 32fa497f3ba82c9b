"""Run single nodes and whole graphs by parts, and compare with the whole model in onnxruntime."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from distredge.graph.extract import PartBuilder, session_options_folder_key
from distredge.graph.importer import Model
from distredge.graph.model import Graph, Node
from distredge.graph.part import NodePart, PartSpec
from distredge.graph.rows import Crop, Rows

Array = np.ndarray[Any, Any]
Values = dict[str, Array]


def session(data: bytes, folder: Path | None = None, optimise: bool = True) -> onnxruntime.InferenceSession:
    """A quiet single-thread session."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if folder is not None:
        options.add_session_config_entry(session_options_folder_key, str(folder))
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    constants: Mapping[str, Array] | None = None,
    opset: int = 17,
    dtypes: Mapping[str, int] | None = None,
    domains: Mapping[str, int] | None = None,
) -> bytes:
    """A serialised model of these nodes."""
    kinds = dtypes or {}
    graph = helper.make_graph(
        list(nodes),
        "test",
        [
            helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), list(s))
            for n, s in inputs.items()
        ],
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), None) for n in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    opsets = [
        helper.make_opsetid("", opset),
        *(helper.make_opsetid(d, v) for d, v in (domains or {}).items()),
    ]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def feeds_for(model: Model, seed: int = 0) -> Values:
    """Random values for every graph input."""
    generator = np.random.default_rng(seed)
    feeds = {}
    for name in model.graph.inputs:
        tensor = model.graph.tensors[name]
        if np.issubdtype(np.dtype(tensor.dtype), np.integer):
            limits = np.iinfo(tensor.dtype)
            low, high = max(limits.min, -100), min(limits.max, 100)
            feeds[name] = generator.integers(low, high, tensor.shape).astype(tensor.dtype)
        elif tensor.dtype == "bool":
            feeds[name] = generator.random(tensor.shape) > 0.5
        else:
            feeds[name] = generator.standard_normal(tensor.shape).astype(tensor.dtype)
    return feeds


def reference(model: Model, feeds: Values) -> list[Array]:
    """What the user's own file answers."""
    data = model.source if isinstance(model.source, bytes) else model.source.read_bytes()
    return session(data).run(None, feeds)


def rows_of(value: Array, axis: int | None, rows: Rows | None) -> Array:
    if axis is None or rows is None:
        return value
    return value[(slice(None),) * axis + (slice(rows.start, rows.stop),)]


class NodeRunner:
    """Runs single graph nodes through PartBuilder, sessions shared by equal parts."""

    def __init__(self, model: Model, optimise: bool = True) -> None:
        self.model, self.builder, self.optimise = model, PartBuilder(model.onnx), optimise
        self.sessions: dict[PartSpec, onnxruntime.InferenceSession] = {}

    def run(self, node: Node, out: Rows, values: Mapping[str, Array]) -> list[Array]:
        """Outputs of `node` for output rows `out`; `values` are whole tensors."""
        tensors = self.model.graph.tensors
        needs = node.rule.needs(out)
        assert len(needs) == len(node.rule.axes)
        inputs: dict[str, Array] = {}
        crops: list[Crop | None] = []
        for name, axis, need in zip(node.inputs, node.rule.axes, needs, strict=False):
            assert (axis is None) == (need is None)
            tensor = tensors.get(name)
            rowed = tensor is not None and tensor.row_axis is not None
            # What every device holds whole is cut inside the part; rows are fed as needed.
            crops.append(None if tensor is None or rowed else _crop(tensor.shape, axis, need))
            if tensor is not None and not tensor.constant:
                piece = rows_of(values[name], axis, need) if rowed else values[name]
                assert name not in inputs or inputs[name].shape == piece.shape
                inputs[name] = piece
        edit = node.rule.edit(out)
        outputs = tuple(name for name in node.outputs if name)
        spec = PartSpec((NodePart(node.source, node.form, tuple(crops), edit),), tuple(inputs), outputs)
        if spec not in self.sessions:
            data = self.builder.build(spec)
            self.sessions[spec] = session(data, self.model.weights.parent, self.optimise)
        return self.sessions[spec].run(None, inputs)


def _crop(shape: tuple[int, ...], axis: int | None, need: Rows | None) -> Crop | None:
    if axis is None or need is None:
        return None
    return Crop(axis, need.start, shape[axis] - need.stop)


def run_by_parts(model: Model, feeds: Values, devices: int, seed: int = 0, optimise: bool = True) -> Values:
    """Every tensor of the graph, each node computed in `devices` random parts from the parts before it.

    Errors add up through the graph as they would in a real run, so that comparing outputs checks rules,
    edits, partials and combines together.
    """
    generator = np.random.default_rng(seed)
    graph, runner = model.graph, NodeRunner(model, optimise)
    values: Values = dict(feeds)
    for node in graph.nodes:
        first = graph.tensors[next(name for name in node.outputs if name)]
        if node.form == "partial":
            source = graph.tensors[node.inputs[0]]
            pieces = [
                runner.run(node, part, values)[0] for part in random_parts(source.rows, devices, generator)
            ]
            values[node.outputs[0]] = np.concatenate(pieces)
        elif first.row_axis is None:
            made = runner.run(node, Rows(0, 1), values)
            values.update(zip([n for n in node.outputs if n], made, strict=True))
        else:
            parts = [runner.run(node, part, values) for part in random_parts(first.rows, devices, generator)]
            for i, name in enumerate(n for n in node.outputs if n):
                axis = graph.tensors[name].row_axis
                assert axis is not None
                for name_, value in zip([n for n in node.outputs if n], parts[0], strict=True):
                    assert value.ndim == len(graph.tensors[name_].shape)
                values[name] = np.concatenate([part[i] for part in parts], axis=axis)
        for name in node.outputs:
            dynamic = graph.tensors[name].dynamic if name else True
            if not dynamic and node.form != "partial" and not isinstance(values[name], list):
                assert values[name].shape == graph.tensors[name].shape, (node.name, name, values[name].shape)
                assert str(values[name].dtype) == str(np.dtype(graph.tensors[name].dtype))
    return values


def random_parts(rows: int, devices: int, generator: np.random.Generator) -> list[Rows]:
    """`devices` or fewer ranges that cover all rows."""
    cuts = sorted(generator.integers(0, rows + 1, devices - 1).tolist())
    bounds = [0, *cuts, rows]
    return [Rows(a, b) for a, b in itertools.pairwise(bounds) if b > a]


def relative_error(actual: Array, expected: Array) -> float:
    """Largest difference over the largest magnitude expected."""
    if actual.size == 0:
        return 0.0
    difference = np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max()
    return float(difference / max(np.abs(expected.astype(np.float64)).max(), 1e-30))


def node_named(graph: Graph, op_type: str, form: str = "node") -> Node:
    return next(node for node in graph.nodes if node.op_type == op_type and node.form == form)


def segments(graph: Graph, cuts: Sequence[str] = ()) -> list[list[Node]]:
    """Runs of nodes that one session can compute from rows: they end at reductions, barriers and cuts."""
    found: list[list[Node]] = [[]]
    closing = {graph.producer[name] for name in cuts}
    for i, node in enumerate(graph.nodes):
        reads_rows = any(name and graph.tensors[name].row_axis is not None for name in node.inputs)
        alone = node.form != "node" or (reads_rows and not graph.is_split(i))
        if alone:
            found += [[node], []]
        else:
            found[-1].append(node)
        if i in closing:
            found.append([])
    return [nodes for nodes in found if nodes]


def run_by_segments(
    model: Model, feeds: Values, devices: int, cuts: Sequence[str] = (), seed: int = 0
) -> Values:
    """The whole graph, each segment computed in random parts with halos recomputed inside the part."""
    generator = np.random.default_rng(seed)
    graph, runner = model.graph, NodeRunner(model)
    values: Values = dict(feeds)
    for nodes in segments(graph, cuts):
        inside = {node.name for node in nodes}
        if nodes[0].form != "node" or not any(graph.is_split(graph.nodes.index(n)) for n in nodes):
            for node in nodes:
                if node.form == "partial":
                    source = graph.tensors[node.inputs[0]]
                    parts = random_parts(source.rows, devices, generator)
                    values[node.outputs[0]] = np.concatenate([runner.run(node, p, values)[0] for p in parts])
                else:
                    made = runner.run(node, Rows(0, 1), values)
                    values.update(zip([n for n in node.outputs if n], made, strict=True))
            continue
        wanted = [
            name
            for node in nodes
            for name in node.outputs
            if name in graph.outputs
            or any(graph.nodes[c].name not in inside for c in graph.consumers.get(name, ()))
        ]
        pieces: dict[str, list[Array]] = {name: [] for name in wanted}
        fractions = sorted(generator.random(devices - 1).tolist())
        for low, high in zip([0.0, *fractions], [*fractions, 1.0], strict=True):
            out = {}
            for name in wanted:
                tensor = graph.tensors[name]
                rows = Rows(round(low * tensor.rows), round(high * tensor.rows))
                if tensor.row_axis is None:
                    out[name] = Rows(0, 1)
                elif rows:
                    out[name] = rows
            for name, value in run_part(model, runner, nodes, out, values).items():
                pieces[name].append(value)
        for name in wanted:
            axis = graph.tensors[name].row_axis
            values[name] = pieces[name][0] if axis is None else np.concatenate(pieces[name], axis=axis)
            assert values[name].shape == graph.tensors[name].shape
    return values


def run_part(
    model: Model,
    runner: NodeRunner,
    nodes: Sequence[Node],
    wanted: Mapping[str, Rows],
    values: Mapping[str, Array],
) -> Values:
    """Rows `wanted` of some tensors, in one session, from exactly the rows that are needed."""
    tensors = model.graph.tensors
    have: dict[str, Rows] = dict(wanted)
    kept: list[tuple[Node, Rows]] = []
    for node in reversed(nodes):
        out = Rows(0, 0)
        for name in node.outputs:
            out = out.hull(have.get(name, Rows(0, 0)))
        if not out:
            continue
        for name in node.outputs:
            have[name] = out
        kept.insert(0, (node, out))
        for name, need in zip(node.inputs, node.rule.needs(out), strict=True):
            if name and not tensors[name].constant:
                need = need if need is not None and tensors[name].row_axis is not None else Rows(0, 1)
                have[name] = need.hull(have.get(name, Rows(0, 0)))
    if not kept:
        return {}
    made = {name for node, _ in kept for name in node.outputs}
    fed = {
        name: rows_of(values[name], tensors[name].row_axis, have[name])
        for node, _ in kept
        for name in node.inputs
        if name and name not in made and not tensors[name].constant
    }
    parts = []
    for node, out in kept:
        crops: list[Crop | None] = []
        for name, axis, need in zip(node.inputs, node.rule.axes, node.rule.needs(out), strict=True):
            if not name or axis is None or need is None:
                crops.append(None)
                continue
            tensor = tensors[name]
            got = have[name] if tensor.row_axis is not None else Rows(0, tensor.shape[axis])
            assert got.covers(need)
            crop = Crop(axis, need.start - got.start, got.stop - need.stop)
            crops.append(crop if crop.top or crop.bottom else None)
        parts.append(NodePart(node.source, node.form, tuple(crops), node.rule.edit(out)))
    # An input of the part can be an output that another device needs: that one is not computed here.
    names = tuple(name for name in wanted if name in made)
    spec = PartSpec(tuple(parts), tuple(fed), names)
    if spec not in runner.sessions:
        runner.sessions[spec] = session(runner.builder.build(spec), model.weights.parent)
    result = dict(zip(names, runner.sessions[spec].run(None, fed), strict=True))
    for name, value in result.items():
        start = wanted[name].start - have[name].start
        axis = tensors[name].row_axis
        result[name] = rows_of(value, axis, None if axis is None else Rows(start, start + wanted[name].size))
    return result
