"""From a file to a small, static ONNX model: load, fix the input shapes, let onnxruntime fold the rest."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeGuard

import onnx
import onnxruntime
from onnx import ModelProto, TensorProto

from distredge.errors import InputError, ModelError
from distredge.graph.dense import with_dense_constants
from distredge.graph.draft import LIMIT_BYTES, dtype_name
from distredge.graph.groupnorm import expand_group_normalisation
from distredge.graph.model import Shape

DISABLED_OPTIMIZERS = ["MatMulAddFusion", "SimplifiedLayerNormFusion"]
"""Basic-level passes that hide rows or leave pure ONNX.

MatMulAddFusion turns an NHWC MatMul + Add into Reshape-Gemm-Reshape.
"""

_LIMIT_ELEMENTS = 2**31 - 1
"""Of one input. No CNN comes near it; what is larger fits into no device's memory."""
_DIMENSION_LETTERS = {3: "NCL", 4: "NCHW", 5: "NCDHW"}


@dataclass(frozen=True)
class InputInfo:
    """A model input or output as the file declares it.

    Attributes:
        dtype: numpy's name.
        shape: fixed dimensions as numbers, symbolic ones by name, unknown ones as None.
        kind: of what is no tensor, as onnxruntime writes it: `seq(tensor(float))`, `optional(...)`.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]
    kind: str = ""


def is_symbol(dim: int | str | None) -> TypeGuard[str]:
    """Whether a dimension has a name, so that all dimensions of that name are equal. Some exporters call
    every unknown one `?`."""
    return isinstance(dim, str) and any(letter.isalpha() for letter in dim)


def read_proto(source: str | Path | bytes, weights: bool = True) -> ModelProto:
    """Load a model, with the weights that it keeps in other files unless `weights` is false.

    Raises:
        ModelError: no such file, or not a whole ONNX model.
    """
    if isinstance(source, bytes):
        return _parsed(source, "the model given as bytes", None, weights)
    path = Path(source)
    if path.is_dir():
        raise ModelError(f"{path} is a folder; give the ONNX file in it", path=path)
    if not path.is_file():
        raise ModelError(f"no model file at {path}", path=path)
    if path.stat().st_size > LIMIT_BYTES:
        raise ModelError(f"{path} is larger than 2 GB, which DistrEdge does not handle", path=path)
    return _parsed(path.read_bytes(), str(path), path.parent, weights)


def _parsed(data: bytes, where: str, folder: Path | None, weights: bool) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf does not say which
        raise ModelError(f"{where} is not an ONNX model, or only part of one", source=where) from error
    if not model.graph.node or not model.opset_import:
        raise ModelError(f"{where} is not an ONNX model: it has no operators", source=where)
    if not weights:
        return model
    with_dense_constants(model.graph, where)
    external = [t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    if external and folder is None:
        raise ModelError(
            f"{where} keeps weights in another file ({external[0].name}); give the model's path instead",
            source=where,
        )
    if external:
        try:
            onnx.load_external_data_for_model(model, str(folder))
        except Exception as error:
            raise ModelError(
                f"{where}: its weights file cannot be read ({first_line(error)})", source=where
            ) from error
    if sum(len(t.raw_data) for t in model.graph.initializer) > LIMIT_BYTES:
        raise ModelError(
            f"{where} holds more than 2 GB of weights, which DistrEdge does not handle", source=where
        )
    return model


def declared_inputs(model: ModelProto) -> tuple[InputInfo, ...]:
    """The inputs that a caller feeds: initializers that are listed as inputs are not."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    return tuple(_info(value) for value in model.graph.input if value.name not in constants)


def declared_outputs(model: ModelProto) -> tuple[InputInfo, ...]:
    """The outputs as the file declares them; shapes may be open."""
    return tuple(_info(value) for value in model.graph.output)


def _info(value: onnx.ValueInfoProto) -> InputInfo:
    if value.type.WhichOneof("value") != "tensor_type":
        return InputInfo(value.name, "object", (), kind_text(value.type))
    kind = value.type.tensor_type
    dims: list[int | str | None] = []
    for dim in kind.shape.dim:
        # Some exporters write 0 or -1 for "unknown".
        known = dim.HasField("dim_value") and dim.dim_value > 0
        dims.append(dim.dim_value if known else (dim.dim_param or None))
    return InputInfo(value.name, dtype_name(kind.elem_type) if kind.elem_type else "object", tuple(dims))


def kind_text(kind: onnx.TypeProto) -> str:
    """A type as onnxruntime writes it."""
    match kind.WhichOneof("value"):
        case "tensor_type":
            name = TensorProto.DataType.Name(kind.tensor_type.elem_type).lower()
            return f"tensor({name})"
        case "sequence_type":
            return f"seq({kind_text(kind.sequence_type.elem_type)})"
        case "optional_type":
            return f"optional({kind_text(kind.optional_type.elem_type)})"
        case other:
            return str(other).removesuffix("_type").replace("_", " ")


def fixed_shapes(infos: tuple[InputInfo, ...], given: Mapping[str, Shape]) -> dict[str, Shape]:
    """A shape for every input that is a tensor.

    A batch dimension that alone is undefined becomes 1.

    Raises:
        InputError: an unknown name, a wrong rank, another size than the file fixes, or a dimension
            that nobody defined.
    """
    names = [info.name for info in infos]
    for name in given:
        if name not in names:
            raise InputError(
                f"the model has no input {name!r}; its inputs are {', '.join(names)}", input=name
            )
    symbols: dict[str, int] = {}
    for info in infos:
        if info.name in given:
            _check_shape(info, given[info.name])
            symbols.update(
                (d, size) for d, size in zip(info.shape, given[info.name], strict=False) if is_symbol(d)
            )
    shapes: dict[str, Shape] = {}
    for info in infos:
        if info.kind:
            continue
        dims = [symbols.get(d, d) if isinstance(d, str) else d for d in info.shape]
        if info.name in given:
            dims = list(given[info.name])
        undefined = [i for i, d in enumerate(dims) if not isinstance(d, int)]
        if undefined == [0] and len(dims) > 1:
            dims[0], undefined = 1, []
        if undefined:
            raise InputError(
                f"input {info.name!r} has no fixed shape; "
                f"give one with --input-shape {info.name}={_example(info)}",
                input=info.name,
                shape=info.shape,
            )
        shapes[info.name] = tuple(d for d in dims if isinstance(d, int))
    return shapes


def given_shapes(given: Mapping[str, Iterable[int]]) -> dict[str, Shape]:
    """Shapes that a caller gives by input name. Raises InputError if one is no row of whole numbers."""
    shapes = {}
    for name, shape in given.items():
        try:
            shapes[name] = tuple(operator.index(size) for size in shape)
        except TypeError:
            raise InputError(
                f"input {name!r}: {shape!r} is no shape; give whole numbers, as (1, 3, 640, 640)", input=name
            ) from None
    return shapes


def _check_shape(info: InputInfo, shape: Shape) -> None:
    said = "x".join(map(str, shape))
    if prod(shape) > _LIMIT_ELEMENTS:
        raise InputError(
            f"input {info.name!r}: {said} is more than {_LIMIT_ELEMENTS} numbers; give a smaller shape",
            input=info.name,
        )
    if info.shape and len(shape) != len(info.shape):
        raise InputError(
            f"input {info.name!r} has {len(info.shape)} dimensions ({_example(info)}), "
            f"but {said} has {len(shape)}",
            input=info.name,
        )
    if any(d < 0 for d in shape):
        raise InputError(
            f"input {info.name!r}: no dimension can be negative, as in {said}",
            input=info.name,
        )
    if any(isinstance(d, int) and d != size for d, size in zip(info.shape, shape, strict=False)):
        raise InputError(f"input {info.name!r} must be {_example(info)}, not {said}", input=info.name)


def _example(info: InputInfo) -> str:
    """The shape as the user may type it, letters for what is open: 1x3xHxW."""
    letters = _DIMENSION_LETTERS.get(len(info.shape), "")
    parts = []
    for i, dim in enumerate(info.shape):
        if isinstance(dim, int):
            parts.append(str(dim))
        elif i == 0:
            parts.append("1")
        else:
            parts.append(letters[i] if letters else f"D{i}")
    return "x".join(parts)


def simplified(model: ModelProto, shapes: Mapping[str, Shape], given: bool) -> ModelProto:
    """Fix the shapes and run onnxruntime's basic offline optimiser. Changes `model`.

    Args:
        given: the caller chose the shapes, so that a refusal may be about them.

    Raises:
        InputError: onnxruntime refuses these shapes.
        ModelError: onnxruntime refuses the model.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(4, model.ir_version)
    del model.graph.value_info[:]
    for value in model.graph.input:
        if value.name in shapes:
            del value.type.tensor_type.shape.dim[:]
            for size in shapes[value.name]:
                value.type.tensor_type.shape.dim.add(dim_value=size)
    for value in model.graph.output:
        # What the file says of its outputs may hold for other input shapes only.
        if value.type.WhichOneof("value") == "tensor_type":
            value.type.tensor_type.ClearField("shape")
    expand_group_normalisation(model)
    try:
        result = _optimised(model)
        if any(node.op_type == "Shape" or node.name.startswith("_inlfunc_") for node in result.graph.node):
            # Functions without a kernel are inlined last; only a second pass folds what they bring.
            result = _optimised(result)
    except Exception as error:
        raise refusal(error, shapes, given) from error
    return result


def _optimised(model: ModelProto) -> ModelProto:
    """The model after onnxruntime's basic optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_prepacking", "1")
    # A file in memory: a full disk for temporary files is no reason to refuse a model.
    with os.fdopen(os.memfd_create("simplified.onnx"), "rb") as file:
        options.optimized_model_filepath = f"/proc/self/fd/{file.fileno()}"
        onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=DISABLED_OPTIMIZERS,
        )
        result = ModelProto()
        result.ParseFromString(file.read())
    return result


def refusal(error: Exception, shapes: Mapping[str, Shape], given: bool) -> ModelError | InputError:
    """onnxruntime's or onnx's complaint in one line."""
    said = first_line(error)
    if given and re.search(r"shape|dimension", said, re.IGNORECASE):
        shown = ", ".join(f"{name}={'x'.join(map(str, shape))}" for name, shape in shapes.items())
        return InputError(
            f"the model does not accept {shown}; try another size, such as a multiple of 32 ({said})",
            shapes=dict(shapes),
        )
    return ModelError(f"onnxruntime does not run this model: {said}")


def first_line(error: BaseException, limit: int = 160) -> str:
    """The part of a library's error that a user can act on, on one line."""
    text = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", text)
    text = re.sub(r"^(Load model from .*? failed:|Failed to load model with error:)\s*", "", text)
    text = re.sub(r"^(/\S+:\d+ .*?\)|Exception during initialization:)\s*", "", text)
    return text if len(text) <= limit else text[: limit - 3].rstrip() + "..."
