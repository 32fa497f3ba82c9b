"""Run single nodes and whole graphs by parts, and compare with the whole model in onnxruntime."""

from __future__ import annotations

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
from distredge.graph.rows import Rows

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
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), list(s)) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), None) for n in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in (domains or {}).items())]
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
        for name, axis, need in zip(node.inputs, node.rule.axes, needs, strict=False):
            if name and not tensors[name].constant:
                assert (axis is None) == (need is None)
                piece = rows_of(values[name], axis, need)
                assert name not in inputs or inputs[name].shape == piece.shape
                inputs[name] = piece
        crops = tuple(
            _constant_crop(tensors[n].shape, axis, need) if n and tensors[n].constant else None
            for n, axis, need in zip(node.inputs, node.rule.axes, needs, strict=False)
        )
        edit = node.rule.edit(out)
        outputs = tuple(name for name in node.outputs if name)
        spec = PartSpec((NodePart(node.source, node.form, crops, edit),), tuple(inputs), outputs)
        if spec not in self.sessions:
            data = self.builder.build(spec)
            self.sessions[spec] = session(data, self.model.weights.parent, self.optimise)
        return self.sessions[spec].run(None, inputs)


def _constant_crop(shape: tuple[int, ...], axis: int | None, need: Rows | None):  # type: ignore[no-untyped-def]
    from distredge.graph.rows import Crop

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
            pieces = [runner.run(node, part, values)[0] for part in random_parts(source.rows, devices, generator)]
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
            if name and node.form != "partial" and not isinstance(values[name], list):
                assert values[name].shape == graph.tensors[name].shape, (node.name, name, values[name].shape)
                assert values[name].dtype == np.dtype(graph.tensors[name].dtype)
    return values


def random_parts(rows: int, devices: int, generator: np.random.Generator) -> list[Rows]:
    """`devices` or fewer ranges that cover all rows."""
    cuts = sorted(generator.integers(0, rows + 1, devices - 1).tolist())
    bounds = [0, *cuts, rows]
    return [Rows(a, b) for a, b in zip(bounds, bounds[1:], strict=False) if b > a]


def relative_error(actual: Array, expected: Array) -> float:
    """Largest difference over the largest magnitude expected."""
    if actual.size == 0:
        return 0.0
    difference = np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max()
    return float(difference / max(np.abs(expected.astype(np.float64)).max(), 1e-30))


def node_named(graph: Graph, op_type: str, form: str = "node") -> Node:
    return next(node for node in graph.nodes if node.op_type == op_type and node.form == form)
