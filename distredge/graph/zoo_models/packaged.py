"""Models out of installed packages: nine topologies of the onnx wheel, and rapidocr's text detector."""

from __future__ import annotations

from importlib.util import find_spec
from math import prod, sqrt
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from distredge.errors import InputError, ModelError
from distredge.graph.zoo_models.builder import IR_VERSION, Shape, Weights

_LIGHT_FILES = {
    "alexnet": "light_bvlc_alexnet",
    "densenet121": "light_densenet121",
    "inception_v1": "light_inception_v1",
    "inception_v2": "light_inception_v2",
    "light_resnet50": "light_resnet50",
    "shufflenet": "light_shufflenet",
    "squeezenet": "light_squeezenet",
    "vgg19": "light_vgg19",
    "zfnet512": "light_zfnet512",
}
_DETECTOR = "PP-OCRv6_det_small.onnx"
_CENTRED = 0.3
_RESIDUAL_SCALE = 0.5
"""Scale of a batch normalisation that ends in a residual sum: the sum of many blocks must not grow."""


def light(name: str, shape: Shape, seed: int) -> onnx.ModelProto:
    """A topology of the onnx wheel, its constant weights replaced by seeded random ones.

    Raises:
        InputError: `shape` is not the one that the topology was written for; its Reshapes have constants.
    """
    model = onnx.load(_package_file("onnx", f"backend/test/data/light/{_LIGHT_FILES[name]}.onnx"))
    graph = model.graph
    values = _Values(graph, seed)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        dims = tuple(int(size) for size in numpy_helper.to_array(constants.pop(node.input[0])))
        drawn = values.draw(node.output[0], dims)
        constants[node.output[0]] = numpy_helper.from_array(drawn, node.output[0])
    inputs = [value for value in graph.input if value.name not in {t.name for t in graph.initializer}]
    fixed = tuple(dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim)
    if shape != fixed:
        size = "x".join(str(dim) for dim in fixed)
        raise InputError(f"{name}: this topology takes an input of {size} only; leave --input-shape out")
    del graph.node[:], graph.initializer[:], graph.input[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.initializer.extend(constants.values())
    graph.input.extend(inputs)
    graph.name = name
    model.ir_version = IR_VERSION
    return model


def pp_ocrv6_det(name: str, shape: Shape, seed: int) -> onnx.ModelProto:
    """The trained detection model of PP-OCRv6, as rapidocr ships it. `seed` is ignored.

    Its rows and columns are open; the default shape, 1x3x0x0, leaves them so.

    Raises:
        ModelError: rapidocr is not installed.
        InputError: `shape` is not one that the model takes.
    """
    model = onnx.load(_package_file("rapidocr", f"models/{_DETECTOR}"))
    if 0 in shape:
        return model
    if len(shape) != 4 or shape[1] != 3 or shape[2] % 32 or shape[3] % 32:
        size = "x".join(str(dim) for dim in shape)
        raise InputError(
            f"{name}: {size} is no input of this model; it takes 1x3xHxW, H and W multiples of 32"
        )
    for dim, value in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = value
    return model


def _package_file(package: str, path: str) -> Path:
    spec = find_spec(package)
    found = Path(spec.origin).parent / path if spec and spec.origin else None
    if found is None or not found.is_file():
        hint = "pip install 'distredge[demo]'" if package == "rapidocr" else f"pip install -U {package}"
        raise ModelError(f"{Path(path).name} is not there: it comes with the package {package} ({hint})")
    return found


class _Values:
    """Chooses values for each weight of a topology by what reads it."""

    def __init__(self, graph: onnx.GraphProto, seed: int) -> None:
        self._weights = Weights(seed, _CENTRED)
        self._made_by = {name: node for node in graph.node for name in node.output}
        self._read_by: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._read_by.setdefault(name, []).append(node)
        self._classifier = [node.name for node in graph.node if node.op_type in ("Conv", "Gemm")][-1]

    def draw(self, name: str, dims: Shape) -> NDArray[np.float32]:
        reader = self._read_by[name][0]
        while reader.op_type in ("Unsqueeze", "Reshape"):
            name = reader.output[0]
            reader = self._read_by[name][0]
        role = list(reader.input).index(name)
        if reader.op_type in ("Conv", "Gemm") and role == 1:
            fan_in = dims[-1] if reader.op_type == "Gemm" else prod(dims[1:])
            return self._weights.filters(dims, fan_in, self._gain(reader))
        if reader.op_type == "BatchNormalization" and role == 1:
            summed = any(node.op_type == "Sum" for node in self._read_by[reader.output[0]])
            return self._weights.factors(dims, _RESIDUAL_SCALE if summed else 1.0)
        if reader.op_type == "Mul" or (reader.op_type == "BatchNormalization" and role == 4):
            return self._weights.factors(dims)
        return self._weights.offsets(dims[0])

    def _gain(self, layer: onnx.NodeProto) -> float:
        before = self._made_by.get(layer.input[0])
        gain = sqrt(0.5) if before is not None and before.op_type == "BatchNormalization" else 1.0
        return 0.5 * gain if layer.name == self._classifier else gain
