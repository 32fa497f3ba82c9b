"""An ONNX graph under construction: what the importer reads and rewrites before it becomes a Graph.

Large tensors are taken out at once and kept beside the graph, so that shape inference and copies stay
cheap however heavy the model is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from distredge.graph.bodies import subgraphs
from distredge.graph.model import Shape
from distredge.graph.names import names_of, unused

INLINE_BYTES = 1024
"""Tensors smaller than this stay in the graph."""
LIMIT_BYTES = 2**31 - 2**20
"""Of a model and of its weights; protobuf holds no more."""

_PACKED = {
    getattr(TensorProto, n)
    for n in ("INT4", "UINT4", "FLOAT4E2M1", "INT2", "UINT2")
    if hasattr(TensorProto, n)
}


class Draft:
    """A model's nodes, constants and shapes, in a form that is easy to change.

    Attributes:
        nodes: in topological order.
        initializers: by name; large ones are stubs whose bytes are in `contents`.
        contents: raw little-endian bytes of the large initializers.
        shapes, dtypes: of every tensor whose shape is known; filled by `infer`.
        known: shapes and dtypes that ONNX's inference is told, since it does not find them itself.
        dynamic: tensors whose shape depends on the data; `shapes` then holds that of one sample, or () where
            no sample is known.
        kinds: of the values that are no tensors.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        graph = model.graph
        self.nodes: list[NodeProto] = list(graph.node)
        for node in self.nodes:
            while len(node.output) > 1 and not node.output[-1]:  # optional, and left empty
                del node.output[-1]
        self.contents: dict[str, bytes] = {}
        self.initializers: dict[str, TensorProto] = {}
        for tensor in graph.initializer:
            self.initializers[tensor.name] = tensor
            self._take_out(tensor)
        self.inputs = [value for value in graph.input if value.name not in self.initializers]
        self.outputs = list(graph.output)
        for value in self.outputs:
            # onnxruntime's guess, which its own ceil_mode pools may contradict; `infer` finds the truth.
            if value.type.WhichOneof("value") == "tensor_type":
                value.type.tensor_type.ClearField("shape")
        self.opsets = {entry.domain or "": entry.version for entry in model.opset_import}
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, str] = {}
        self.dynamic: set[str] = set()
        self.kinds: dict[str, onnx.TypeProto] = {}
        self.known: dict[str, tuple[Shape, str]] = {}
        self._fresh = 0
        names = names_of(self.nodes, (*graph.input, *graph.output))
        self._mark = unused("/distredge_", (*names, *self.initializers))

    @property
    def opset(self) -> int:
        """Of ONNX's own operators."""
        return int(self.opsets.get("", self.opsets.get("ai.onnx", 1)))

    def _take_out(self, tensor: TensorProto) -> None:
        raw = raw_bytes(tensor)
        if raw is None or len(raw) < INLINE_BYTES:
            return
        self.contents[tensor.name] = raw
        name, dims, kind = tensor.name, list(tensor.dims), tensor.data_type
        tensor.Clear()
        tensor.name, tensor.data_type, tensor.data_location = name, kind, TensorProto.EXTERNAL
        tensor.dims.extend(dims)
        tensor.external_data.add(key="location", value="pending")

    def infer(self) -> None:
        """Fill `shapes` and `dtypes` as far as ONNX's shape inference gets.

        Raises:
            onnx.shape_inference.InferenceError: the shapes contradict one another.
        """
        model = self.to_model(values=False)
        for name, (shape, dtype) in self.known.items():
            _pretend_input(model.graph, name, f"{name}{self._mark}inferred", shape, dtype)
        # One that is an input and an output at once would keep inference from going on behind it.
        kept = [value for value in model.graph.output if value.name not in self.known]
        del model.graph.output[:]
        model.graph.output.extend(kept)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        self.shapes.clear()
        self.dtypes.clear()
        for tensor in self.initializers.values():
            self.shapes[tensor.name] = tuple(tensor.dims)
            self.dtypes[tensor.name] = dtype_name(tensor.data_type)
        graph = inferred.graph
        for value in (*graph.value_info, *graph.output, *graph.input):
            self.learn(value)

    def learn(self, value: onnx.ValueInfoProto) -> None:
        """Take over a shape, if it is fixed."""
        if value.type.WhichOneof("value") != "tensor_type":
            self.dtypes.setdefault(value.name, "object")
            self.kinds[value.name] = value.type
            return
        kind = value.type.tensor_type
        if kind.elem_type:
            self.dtypes[value.name] = dtype_name(kind.elem_type)
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            self.shapes[value.name] = tuple(d.dim_value for d in kind.shape.dim)

    def to_model(self, values: bool = True) -> ModelProto:
        """The graph as a model; `values` adds the known shapes as value_info."""
        model = ModelProto(ir_version=max(4, self.model.ir_version))
        domains = {"", "ai.onnx"} | {inner.domain for node in self.nodes for inner in with_bodies(node)}
        model.opset_import.extend(entry for entry in self.model.opset_import if entry.domain in domains)
        graph = model.graph
        graph.name = self.model.graph.name or "model"
        graph.node.extend(self.nodes)
        graph.input.extend(self.inputs)
        graph.output.extend(self._with_shape(value) if values else value for value in self.outputs)
        used = {name for node in self.nodes for name in node_inputs(node)} | {o.name for o in self.outputs}
        graph.initializer.extend(t for name, t in self.initializers.items() if name in used)
        if values:
            listed = {value.name for value in (*self.inputs, *self.outputs)} | set(self.initializers)
            for node in self.nodes:
                for name in node.output:
                    if name and name not in listed and name in self.dtypes:
                        graph.value_info.append(self.value_info(name))
        return model

    def _with_shape(self, value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
        """An output with its shape, which parts need to know; one that depends on the data has none."""
        shape = self.shapes.get(value.name)
        if shape is None or value.name in self.dynamic or value.type.WhichOneof("value") != "tensor_type":
            return value
        shaped = onnx.ValueInfoProto()
        shaped.CopyFrom(value)
        shaped.type.tensor_type.ClearField("shape")
        shaped.type.tensor_type.shape.SetInParent()
        for size in shape:
            shaped.type.tensor_type.shape.dim.add(dim_value=size)
        return shaped

    def value_info(self, name: str) -> onnx.ValueInfoProto:
        """How a tensor is declared as an input or output of a graph."""
        if name in self.kinds:
            return onnx.ValueInfoProto(name=name, type=self.kinds[name])
        dtype = self.dtypes[name]
        element = (
            TensorProto.STRING if dtype == "object" else helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        )
        shape = None if name in self.dynamic else self.shapes.get(name)
        return helper.make_tensor_value_info(name, element, shape)

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """The value of a constant, small or large; None where `name` is computed."""
        tensor = self.initializers.get(name)
        if tensor is None:
            return None
        if name in self.contents:
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            return np.frombuffer(self.contents[name], dtype).reshape(tuple(tensor.dims))
        return numpy_helper.to_array(tensor)

    def small_constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """The value of a constant that holds sizes or axes rather than weights."""
        return None if name in self.contents else self.constant(name)

    def add_constant(self, value: np.ndarray[Any, Any], hint: str) -> str:
        """Add a constant under a new name and return the name."""
        name = self.fresh(hint)
        tensor = numpy_helper.from_array(value, name)
        self.initializers[name] = tensor
        self._take_out(tensor)
        self.shapes[name], self.dtypes[name] = tuple(value.shape), value.dtype.name
        return name

    def rename_constant(self, old: str, new: str) -> None:
        """Give a constant another name, wherever it is read."""
        tensor = self.initializers.pop(old)
        tensor.name = new
        self.initializers[new] = tensor
        if old in self.contents:
            self.contents[new] = self.contents.pop(old)
        for node in self.nodes:
            _rename_inputs(node, old, new)

    def fresh(self, hint: str) -> str:
        """A tensor or node name that nothing else has."""
        self._fresh += 1
        return f"{hint}{self._mark}{self._fresh}"

    def producers(self) -> dict[str, NodeProto]:
        """The node that makes each tensor."""
        return {name: node for node in self.nodes for name in node.output if name}

    def consumers(self) -> dict[str, list[NodeProto]]:
        """The nodes that read each tensor, their subgraphs included; each once."""
        found: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node_inputs(node)):
                if name:
                    found.setdefault(name, []).append(node)
        return found

    def name_nodes(self) -> None:
        """Give every node a name that is unique."""
        taken = {node.name for node in self.nodes}
        seen: set[str] = set()
        for index, node in enumerate(self.nodes):
            if not node.name or node.name in seen:
                base = node.name or f"{node.op_type}_{index}"
                number, name = 1, base
                while name in taken:
                    number, name = number + 1, f"{base}_{number + 1}"
                node.name = name
                taken.add(name)
            seen.add(node.name)


def _pretend_input(graph: GraphProto, name: str, renamed: str, shape: Shape, dtype: str) -> None:
    """Make a computed tensor an input, so that inference takes its shape as given. What its producer makes
    is renamed."""
    for node in graph.node:
        for i, made in enumerate(node.output):
            if made == name:
                node.output[i] = renamed
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph.input.append(helper.make_tensor_value_info(name, element, shape))


def raw_bytes(tensor: TensorProto) -> bytes | None:
    """A tensor's little-endian bytes; None for strings and types packed below a byte."""
    if tensor.data_type == TensorProto.STRING or tensor.data_type in _PACKED:
        return None
    return tensor.raw_data if tensor.HasField("raw_data") else numpy_helper.to_array(tensor).tobytes()


def dtype_name(element: int) -> str:
    """numpy's name of an ONNX element type; "object" for strings."""
    if element == TensorProto.STRING:
        return "object"
    return np.dtype(helper.tensor_dtype_to_np_dtype(element)).name


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Attributes as plain Python values; text decoded, graphs left out."""
    plain: dict[str, Any] = {}
    for attribute in node.attribute:
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS, AttributeProto.SPARSE_TENSOR):
            continue
        value = helper.get_attribute_value(attribute)
        plain[attribute.name] = value.decode(errors="replace") if isinstance(value, bytes) else value
        if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS):
            plain[attribute.name] = list(value)
    return plain


def set_attribute(node: NodeProto, name: str, value: object) -> None:
    """Set one attribute; None removes it."""
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, list(value) if isinstance(value, tuple) else value))


def with_bodies(node: NodeProto) -> Iterator[NodeProto]:
    """The node and every node in its bodies."""
    yield node
    for graph in subgraphs(node):
        for inner in graph.node:
            yield from with_bodies(inner)


def captured(node: NodeProto) -> tuple[str, ...]:
    """Names that the bodies of If, Loop or Scan take from around them."""
    found: dict[str, None] = {}
    for graph in subgraphs(node):
        own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        for inner in graph.node:
            found.update(dict.fromkeys(n for n in node_inputs(inner) if n and n not in own))
            own.update(inner.output)
        found.update(dict.fromkeys(value.name for value in graph.output if value.name not in own))
    return tuple(found)


def _rename_inputs(node: NodeProto, old: str, new: str) -> None:
    for i, name in enumerate(node.input):
        if name == old:
            node.input[i] = new
    for graph in subgraphs(node):
        for inner in graph.node:
            _rename_inputs(inner, old, new)


def node_inputs(node: NodeProto) -> tuple[str, ...]:
    """The node's inputs and, behind them, what its bodies capture."""
    own = tuple(node.input)
    return own + tuple(name for name in captured(node) if name not in own)
