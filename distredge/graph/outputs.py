"""A model's outputs as onnxruntime describes them: types and shapes that the file leaves out are inferred."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from distredge.graph.draft import INLINE_BYTES
from distredge.graph.simplify import InputInfo, declared_outputs, read_proto


def described_outputs(source: str | Path | bytes) -> tuple[InputInfo, ...]:
    """The outputs, with what ONNX's inference tells of those whose type or shape the file leaves open.

    Dimensions that it cannot tell are None.

    Raises:
        ModelError: as `read_proto`.
    """
    model = read_proto(source, weights=False)
    if all(_is_whole(value) for value in model.graph.output):
        return declared_outputs(model)
    symbols = {dim for value in (*model.graph.input, *model.graph.output) for dim in _symbols(value)}
    _take_out_weights(model)
    try:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return declared_outputs(model)
    return tuple(_without_others(info, symbols) for info in declared_outputs(model))


def _is_whole(value: ValueInfoProto) -> bool:
    kind = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type":
        return value.type.WhichOneof("value") is not None
    return kind.elem_type != 0 and kind.HasField("shape")


def _symbols(value: ValueInfoProto) -> list[str]:
    return [dim.dim_param for dim in value.type.tensor_type.shape.dim if dim.dim_param]


def _take_out_weights(model: ModelProto) -> None:
    """Large tensors become inputs, since only their shapes matter: inference copies the whole model."""
    graph = model.graph
    model.ir_version = max(4, model.ir_version)
    listed = {value.name for value in graph.input}
    small = []
    for tensor in graph.initializer:
        if tensor.ByteSize() < INLINE_BYTES and tensor.data_location != TensorProto.EXTERNAL:
            small.append(tensor)
        elif tensor.name not in listed:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    del graph.initializer[:]
    graph.initializer.extend(small)


def _without_others(info: InputInfo, symbols: set[str]) -> InputInfo:
    """Without the names that inference makes up for dimensions that it does not know (unk__0)."""
    shape = tuple(None if isinstance(dim, str) and dim not in symbols else dim for dim in info.shape)
    return InputInfo(info.name, info.dtype, shape, info.kind)
