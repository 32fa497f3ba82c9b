"""One device's part as an ONNX model: some nodes of the simplified model, cut to some rows.

Runs on devices. Weights stay references into the weights file; load a part with
`session_options_folder_key` set to the folder where that file lies.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from distredge.graph.external import check_references
from distredge.graph.names import names_of, partials_mark, unused
from distredge.graph.part import NodePart, PartSpec
from distredge.graph.rows import Crop, Taps

session_options_folder_key = "session.model_external_initializers_file_folder_path"
"""onnxruntime's session config entry for the folder of the weights file, for models given as bytes."""

ROWS_KEY = "distredge.rows"
"""Metadata entry of the simplified model: the row axis of each rowed tensor, as JSON."""

_REDUCES_AS = {
    "GlobalAveragePool": "ReduceSum",
    "GlobalMaxPool": "ReduceMax",
    "ReduceMean": "ReduceSum",
    "ReduceL2": "ReduceSumSquare",
    "ReduceLogSum": "ReduceSum",
}
"""What a device computes over its own rows, where that is not the operator itself."""

_SUMS = ("ReduceSum", "ReduceSumSquare", "ReduceL1")

_JOINS_AS = {
    "ReduceSum": "ReduceSum",
    "ReduceSumSquare": "ReduceSum",
    "ReduceL1": "ReduceSum",
    "ReduceMax": "ReduceMax",
    "ReduceMin": "ReduceMin",
    "ReduceProd": "ReduceProd",
    "ReduceLogSumExp": "ReduceLogSumExp",
}
"""How partial results of an operator are joined."""


_PRODUCTS = ("Gemm", "MatMul")
_WORKING = frozenset(
    {
        *_PRODUCTS,
        *(
            "Conv",
            "ConvTranspose",
            "FusedConv",
            "ConvInteger",
            "QLinearConv",
            "MatMulInteger",
            "QLinearMatMul",
        ),
        *("LSTM", "GRU", "RNN", "Attention", "If", "Loop", "Scan"),
    }
)
"""Operators with weights that the engine may lay out anew."""


SAME_AFTER_SLICE = 10
"""The opset at which shape inference takes a cropped axis for as long as before if that has a name; and then
onnxruntime puts the one into the buffer of the other."""


class PartBuilder:
    """Cuts parts out of one simplified model.

    Args:
        onnx: the simplified model, as `Model.onnx`.

    Raises:
        ModelError: it refers to files other than weights.
    """

    def __init__(self, onnx: bytes) -> None:
        model = ModelProto()
        model.ParseFromString(onnx)
        check_references(model)
        graph = model.graph
        self._ir_version = model.ir_version
        self._opsets = list(model.opset_import)
        self._opset = max((e.version for e in self._opsets if e.domain in ("", "ai.onnx")), default=1)
        self._nodes = {node.name: node for node in graph.node}
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._values = {v.name: v for v in (*graph.value_info, *graph.input, *graph.output)}
        self._row_axes: dict[str, int] = {}
        for entry in model.metadata_props:
            if entry.key == ROWS_KEY:
                self._row_axes = json.loads(entry.value)
        names = names_of(graph.node, graph.input)
        self._partials, self._mark = partials_mark(names), unused("/part_", names)
        self._combined = {f"{out}{self._partials}": out for node in graph.node for out in node.output}

    def build(self, spec: PartSpec) -> bytes:
        """The part as a serialised ONNX model: inputs and outputs as in `spec`, rows symbolic."""
        scope = _Scope(self._opset, self._initializers, self._values, self._mark, self._partials)
        for part in spec.nodes:
            scope.add(self._nodes[part.source], part)
        model = ModelProto(ir_version=self._ir_version)
        model.opset_import.extend(self._opsets)
        graph = model.graph
        graph.name = "part"
        graph.node.extend(scope.nodes)
        graph.input.extend(self._value(name, True) for name in spec.inputs)
        graph.output.extend(self._value(name, False) for name in spec.outputs)
        graph.initializer.extend(scope.initializers.values())
        return bytes(model.SerializeToString(deterministic=True))

    def reads_weights_once(self, spec: PartSpec) -> bool:
        """Whether all work of the part is to multiply single vectors by weights. Weights that the engine
        lays out anew take twice the memory then, and half as long again to read."""
        working = [self._nodes[p.source] for p in spec.nodes if self._nodes[p.source].op_type in _WORKING]
        return bool(working) and all(self._is_of_a_vector(node) for node in working)

    def _is_of_a_vector(self, node: NodeProto) -> bool:
        if not self._initializers.keys() & node.input[:2]:
            return False  # its weights are computed, as dequantised ones are, and not in the file
        out = self._values.get(node.output[0])
        sizes = [d.dim_value for d in out.type.tensor_type.shape.dim] if out is not None else []
        return node.op_type in _PRODUCTS and len(sizes) == 2 and sizes[0] == 1

    def _value(self, name: str, is_input: bool) -> onnx.ValueInfoProto:
        value = onnx.ValueInfoProto()
        if name in self._values:
            value.CopyFrom(self._values[name])
            axis = self._row_axes.get(name)
        else:
            # A partials tensor has no entry of its own: it is the result with a row per device in front.
            value.CopyFrom(self._values[self._combined[name]])
            kind = value.type.tensor_type
            if kind.elem_type == TensorProto.FLOAT16:
                kind.elem_type = TensorProto.FLOAT
            dims = [d.dim_value for d in kind.shape.dim]
            value.CopyFrom(helper.make_tensor_value_info(name, kind.elem_type, [0, *dims]))
            axis = 0
        if value.type.WhichOneof("value") == "tensor_type":
            shape = value.type.tensor_type.shape
            if axis is not None and axis < len(shape.dim):
                shape.dim[axis].Clear()
                if self._opset != SAME_AFTER_SLICE:
                    shape.dim[axis].dim_param = f"rows of {name}"
            if not is_input:
                # onnxruntime infers it; a symbol of ours would only contradict what it finds.
                value.type.tensor_type.ClearField("shape")
        return value


class _Scope:
    """Nodes and constants of one part while it is put together."""

    def __init__(
        self,
        opset: int,
        constants: dict[str, TensorProto],
        values: dict[str, Any],
        mark: str,
        partials: str,
    ) -> None:
        self.opset, self.nodes = opset, list[NodeProto]()
        self.initializers: dict[str, TensorProto] = {}
        self._constants, self._values = constants, values
        self._mark, self._partials = mark, partials
        self._cropped: dict[tuple[str, Crop], str] = {}
        self._count = 0

    def add(self, source: NodeProto, part: NodePart) -> None:
        """Add one node as the part wants it."""
        if part.form == "combine":
            self._combine(source)
            return
        node = NodeProto()
        node.CopyFrom(source)
        for i, name in enumerate(source.input):
            crop = part.crops[i] if i < len(part.crops) else None
            if crop is None or not (crop.top or crop.bottom):
                self._use(name)
            elif self._is_stored_by(crop.axis, name):
                node.input[i] = self._stored_rows(name, crop)
            else:
                self._use(name)
                node.input[i] = self.crop(name, crop)
        for name in _names_in(source):
            self._use(name)
        if part.form == "partial":
            self._partial(node, source.input[0])
            return
        edit = part.edit
        if edit is None:
            self.nodes.append(node)
            return
        for name, value in edit.attributes:
            _set_attribute(node, name, value)
        for index, dtype, values in edit.constants:
            while len(node.input) <= index:
                node.input.append("")
            node.input[index] = "" if values is None else self.constant(np.array(values, dtype=dtype))
        while node.input and not node.input[-1]:
            del node.input[-1]
        if edit.taps is not None:
            node.input[0] = self._taps(source.input[0], node.input[0], edit.taps)
        if edit.bypass:
            node = helper.make_node("Identity", [node.input[0]], [node.output[0]], node.name)
        if edit.crop is not None:
            wanted = node.output[0]
            node.output[0] = self.fresh(wanted)
            self.nodes.append(node)
            self.crop(node.output[0], edit.crop, wanted)
        else:
            self.nodes.append(node)

    def _use(self, name: str) -> None:
        if name in self._constants:
            self.initializers[name] = self._constants[name]

    def _is_stored_by(self, axis: int, name: str) -> bool:
        """Whether rows along this axis are one piece of the weights file."""
        tensor = self._constants.get(name)
        return tensor is not None and axis == 0 and tensor.data_location == TensorProto.EXTERNAL

    def _stored_rows(self, name: str, crop: Crop) -> str:
        """A constant without its first and last rows, of which only the others are read from the file."""
        if (name, crop) not in self._cropped:
            whole = self._constants[name]
            made = self._cropped[name, crop] = self.fresh(name)
            place = {entry.key: entry.value for entry in whole.external_data}
            row_bytes = int(place["length"]) // whole.dims[0]
            rows = whole.dims[0] - crop.top - crop.bottom
            place["offset"] = str(int(place["offset"]) + crop.top * row_bytes)
            place["length"] = str(rows * row_bytes)
            cut = TensorProto(name=made, data_type=whole.data_type, data_location=TensorProto.EXTERNAL)
            cut.dims.extend([rows, *whole.dims[1:]])
            for key, value in place.items():
                cut.external_data.add(key=key, value=value)
            self.initializers[made] = cut
        return self._cropped[name, crop]

    def fresh(self, hint: str) -> str:
        self._count += 1
        return f"{hint}{self._mark}{self._count}"

    def constant(self, value: np.ndarray[Any, Any]) -> str:
        name = self.fresh("constant")
        self.initializers[name] = numpy_helper.from_array(value, name)
        return name

    def emit(self, op_type: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        output = output or self.fresh(op_type)
        self.nodes.append(helper.make_node(op_type, inputs, [output], self.fresh("node"), **attributes))
        return output

    def crop(self, name: str, crop: Crop, output: str = "") -> str:
        """`name` without its first and last rows; one Slice for all who want the same."""
        if not output and (name, crop) in self._cropped:
            return self._cropped[name, crop]
        start, end = [crop.top], [-crop.bottom if crop.bottom else 2**63 - 1]
        if self.opset < 10:
            made = self.emit("Slice", [name], output, starts=start, ends=end, axes=[crop.axis])
        else:
            bounds = [self.constant(np.array(v, dtype=np.int64)) for v in (start, end, [crop.axis])]
            made = self.emit("Slice", [name, *bounds], output)
        if not output:
            self._cropped[name, crop] = made
        return made

    def _taps(self, original: str, name: str, taps: Taps) -> str:
        kind = self._values[original].type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        column = [-1 if axis == taps.axis else 1 for axis in range(len(kind.shape.dim))]
        terms = []
        for k, rows in enumerate(taps.rows):
            term = self.emit("Gather", [name, self.constant(np.array(rows, dtype=np.int64))], axis=taps.axis)
            if taps.weights:
                weights = np.array(taps.weights[k], dtype=dtype).reshape(column)
                term = self.emit("Mul", [term, self.constant(weights)])
            terms.append(term)
        return terms[0] if len(terms) == 1 else self.emit("Sum", terms)

    def reduce(self, op_type: str, name: str, axes: Sequence[int], keepdims: int, output: str = "") -> str:
        """A Reduce node over `axes`, in the form of the model's opset."""
        if self.opset >= (13 if op_type == "ReduceSum" else 18):
            over = self.constant(np.array(axes, dtype=np.int64))
            return self.emit(op_type, [name, over], output, keepdims=keepdims)
        return self.emit(op_type, [name], output, axes=list(axes), keepdims=keepdims)

    def _partial(self, node: NodeProto, original: str) -> None:
        """This device's share of a reduction, with an axis in front for the devices."""
        kind = self._values[original].type.tensor_type
        axes, keepdims = self._reduced(node, len(kind.shape.dim))
        name = node.input[0]
        if kind.elem_type == TensorProto.FLOAT16:
            name = self.emit("Cast", [name], to=TensorProto.FLOAT)
        reduces_as = _REDUCES_AS.get(node.op_type, node.op_type)
        if reduces_as in _SUMS and len(axes) > 1:
            # Line by line first: onnxruntime adds up a whole map in one go, and rounds ten times as much.
            name = self.reduce(reduces_as, name, axes[-1:], 1)
            reduces_as = "ReduceSum"
        share = self.reduce(reduces_as, name, axes, keepdims)
        output = f"{node.output[0]}{self._partials}"
        if self.opset >= 13:
            self.emit("Unsqueeze", [share, self.constant(np.array([0], dtype=np.int64))], output)
        else:
            self.emit("Unsqueeze", [share], output, axes=[0])

    def _combine(self, node: NodeProto) -> None:
        """All devices' shares become the result."""
        kind = self._values[node.input[0]].type.tensor_type
        sizes = [dim.dim_value for dim in kind.shape.dim]
        axes, _ = self._reduced(node, len(sizes))
        half = kind.elem_type == TensorProto.FLOAT16
        dtype = np.dtype(np.float32) if half else helper.tensor_dtype_to_np_dtype(kind.elem_type)
        output = node.output[0]
        join = _JOINS_AS[_REDUCES_AS.get(node.op_type, node.op_type)]
        last = {"GlobalAveragePool": "Div", "ReduceMean": "Div", "ReduceL2": "Sqrt", "ReduceLogSum": "Log"}
        then = last.get(node.op_type)
        made = self.reduce(join, f"{output}{self._partials}", [0], 0, "" if then or half else output)
        if then == "Div":
            count = np.array(prod(sizes[axis] for axis in axes), dtype=dtype)
            made = self.emit("Div", [made, self.constant(count)], "" if half else output)
        elif then:
            made = self.emit(then, [made], "" if half else output)
        if half:
            self.emit("Cast", [made], output, to=TensorProto.FLOAT16)

    def _reduced(self, node: NodeProto, rank: int) -> tuple[list[int], int]:
        """Axes that a reduction goes over, and whether it keeps them."""
        if node.op_type.startswith("Global"):
            return list(range(2, rank)), 1
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        axes = list(attributes.get("axes", ()))
        if len(node.input) > 1 and node.input[1]:
            axes = numpy_helper.to_array(self._constants[node.input[1]]).reshape(-1).tolist()
        axes = sorted(int(axis) % rank for axis in axes) or list(range(rank))
        return axes, int(attributes.get("keepdims", 1))


def _set_attribute(node: NodeProto, name: str, value: object) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, list(value) if isinstance(value, tuple) else value))


def _names_in(node: NodeProto) -> set[str]:
    """Every name that the bodies of If, Loop or Scan mention."""
    names: set[str] = set()
    for attribute in node.attribute:
        graphs: list[GraphProto] = list(attribute.graphs)
        if attribute.type == AttributeProto.GRAPH:
            graphs.append(attribute.g)
        for graph in graphs:
            names.update(value.name for value in graph.output)
            for inner in graph.node:
                names.update(inner.input)
                names.update(_names_in(inner))
    return names
