"""Writes an ONNX model operator by operator, with known shapes and seeded random weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import pi, prod, sqrt
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from distredge.errors import InputError

OPSET = 17
IR_VERSION = 8
MAX_BYTES = 2**31 - 2**24
"""Of all weights; protobuf takes 2 GiB for the whole message."""
_RELU_MEAN = 1 / sqrt(2 * pi)
"""Of ReLU(z), z standard normal; the mean of its square is 1/2."""

Shape = tuple[int, ...]
Pair = int | tuple[int, int]


class Weights:
    """Random weights under which activations keep their magnitude through any depth.

    Convolutions are drawn with He's variance; batch normalisations are mild random affine maps, as if
    their statistics had been measured. The same seed gives the same weights on every machine.

    Args:
        seed: of all weights.
        centred: how much of each filter's sum is taken out, from 0 to 1. ReLUs leave a mean that is the
            same everywhere, and layer by layer it drowns what differs from position to position: a network
            that also averages its last map would hardly show misplaced rows. But the same factor
            amplifies rounding, by up to 1.2 a layer: leave it 0 where the output has positions.
    """

    def __init__(self, seed: int, centred: float = 0.0) -> None:
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._centred = centred
        self._bytes = 0

    def normal(self, shape: Shape, std: float) -> NDArray[np.float32]:
        """Raises InputError where the weights grow past what one ONNX file holds."""
        self._bytes += 4 * prod(shape)
        if self._bytes > MAX_BYTES:
            raise InputError("with this input shape the weights pass 2 GB, which no ONNX file holds")
        values = self._random.standard_normal(shape, dtype=np.float32)
        values *= np.float32(std)
        return values

    def filters(self, shape: Shape, fan_in: int, gain: float = 1.0) -> NDArray[np.float32]:
        """Weights [outputs, ...] of a convolution or fully connected layer behind a ReLU."""
        power = 0.5 - self._centred * (2 - self._centred) * _RELU_MEAN**2
        values = self.normal(shape, gain / sqrt(power * fan_in))
        if self._centred:
            # in float64, so that the order of the sum does not show and every machine agrees
            means = values.mean(axis=tuple(range(1, len(shape))), dtype=np.float64, keepdims=True)
            values -= (self._centred * means).astype(np.float32)
        return values

    def offsets(self, channels: int) -> NDArray[np.float32]:
        """Small numbers around 0, one for each channel."""
        return self.normal((channels,), 0.1)

    def factors(self, shape: Shape, scale: float = 1.0) -> NDArray[np.float32]:
        """Positive values around `scale`."""
        values = self._random.random(shape, dtype=np.float32)
        return np.float32(scale) * (np.float32(0.8) + np.float32(0.4) * values)


class Builder:
    """A model in the making. Every method adds one operator and returns the name of its output.

    Maps are NCHW. `shapes` holds the shape of every tensor made so far.
    """

    def __init__(self, name: str, inputs: Mapping[str, Shape], seed: int) -> None:
        self.name = name
        self.shapes: dict[str, Shape] = dict(inputs)
        self.weights = Weights(seed)
        self._inputs = dict(inputs)
        # Filled in place: copying a gigabyte of weights from message to message takes seconds.
        self._model = helper.make_model(
            onnx.GraphProto(name=name),
            producer_name="distredge",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        self._graph = self._model.graph
        self._counts: dict[str, int] = {}

    # Operators with weights

    def conv(
        self,
        x: str,
        channels: int,
        kernel: Pair = 3,
        *,
        stride: int = 1,
        pad: Pair | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        gain: float = 1.0,
        name: str = "",
    ) -> str:
        """A convolution; `pad` defaults to what keeps the size at stride 1."""
        n, in_channels, height, width = self.shapes[x]
        kh, kw = _pair(kernel)
        ph, pw = _pair(pad) if pad is not None else (dilation * (kh - 1) // 2, dilation * (kw - 1) // 2)
        out = (
            n,
            channels,
            (height + 2 * ph - dilation * (kh - 1) - 1) // stride + 1,
            (width + 2 * pw - dilation * (kw - 1) - 1) // stride + 1,
        )
        name = name or self._unique("conv")
        shape = (channels, in_channels // groups, kh, kw)
        weights = self.constant(f"{name}.weight", self.weights.filters(shape, prod(shape[1:]), gain))
        biases = [self.constant(f"{name}.bias", self.weights.offsets(channels))] if bias else []
        return self.node(
            "Conv",
            [x, weights, *biases],
            out,
            name=name,
            kernel_shape=[kh, kw],
            strides=[stride, stride],
            pads=[ph, pw, ph, pw],
            dilations=[dilation, dilation],
            group=groups,
        )

    def conv_transpose(self, x: str, channels: int, kernel: int, *, stride: int, pad: int = 0) -> str:
        """A transposed convolution with bias."""
        n, in_channels, height, width = self.shapes[x]
        out = (
            n,
            channels,
            (height - 1) * stride - 2 * pad + kernel,
            (width - 1) * stride - 2 * pad + kernel,
        )
        name = self._unique("deconv")
        # Each output value sees only every stride-th tap of the kernel.
        fan_in = max(1, in_channels * (kernel // stride) ** 2)
        shape = (in_channels, channels, kernel, kernel)
        weights = self.constant(f"{name}.weight", self.weights.filters(shape, fan_in))
        return self.node(
            "ConvTranspose",
            [x, weights],
            out,
            name=name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad, pad, pad, pad],
        )

    def batch_norm(self, x: str, *, epsilon: float = 1e-5, scale: float = 1.0) -> str:
        """Normalisation by fixed statistics; `scale` is about what it multiplies by."""
        channels = self.shapes[x][1]
        name = self._unique("norm")
        parameters = {
            "scale": self.weights.factors((channels,), scale),
            "bias": self.weights.offsets(channels),
            "mean": self.weights.offsets(channels),
            "var": self.weights.factors((channels,)),
        }
        inputs = [self.constant(f"{name}.{key}", value) for key, value in parameters.items()]
        return self.node("BatchNormalization", [x, *inputs], self.shapes[x], name=name, epsilon=epsilon)

    def gemm(self, x: str, features: int, *, gain: float = 1.0, name: str = "") -> str:
        """A fully connected layer with bias."""
        n, in_features = self.shapes[x]
        name = name or self._unique("fc")
        weights = self.weights.filters((features, in_features), in_features, gain)
        inputs = [
            x,
            self.constant(f"{name}.weight", weights),
            self.constant(f"{name}.bias", self.weights.offsets(features)),
        ]
        return self.node("Gemm", inputs, (n, features), name=name, transB=1)

    # Operators without weights

    def relu(self, x: str, *, name: str = "") -> str:
        """max(x, 0)."""
        return self.node("Relu", [x], self.shapes[x], name=name)

    def leaky_relu(self, x: str, alpha: float = 0.1) -> str:
        """x, or `alpha` times x below 0."""
        return self.node("LeakyRelu", [x], self.shapes[x], alpha=alpha)

    def sigmoid(self, x: str, *, name: str = "") -> str:
        """1 / (1 + exp(-x))."""
        return self.node("Sigmoid", [x], self.shapes[x], name=name)

    def softmax(self, x: str, axis: int, *, name: str = "") -> str:
        """Shares that sum to 1 along an axis."""
        return self.node("Softmax", [x], self.shapes[x], name=name, axis=axis)

    def max_pool(
        self, x: str, kernel: int = 2, *, stride: int = 2, pad: int = 0, ceil: bool = False, name: str = ""
    ) -> str:
        """The largest of each window."""
        return self.node(
            "MaxPool",
            [x],
            self._pooled(x, kernel, stride, pad, ceil),
            name=name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad, pad, pad, pad],
            ceil_mode=int(ceil),
        )

    def average_pool(self, x: str, kernel: int, *, stride: int, pad: int = 0) -> str:
        """As PyTorch's: padding counts in the average."""
        return self.node(
            "AveragePool",
            [x],
            self._pooled(x, kernel, stride, pad, False),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad, pad, pad, pad],
            count_include_pad=1,
        )

    def global_average_pool(self, x: str) -> str:
        """The mean of each channel, of shape (n, channels, 1, 1)."""
        return self.node("GlobalAveragePool", [x], (*self.shapes[x][:2], 1, 1))

    def flatten(self, x: str) -> str:
        """All but the first axis as one."""
        shape = self.shapes[x]
        return self.node("Flatten", [x], (shape[0], prod(shape[1:])), axis=1)

    def add(self, a: str, b: str) -> str:
        """a + b, broadcast."""
        return self.node("Add", [a, b], np.broadcast_shapes(self.shapes[a], self.shapes[b]))

    def mul(self, a: str, b: str) -> str:
        """a · b, broadcast."""
        return self.node("Mul", [a, b], np.broadcast_shapes(self.shapes[a], self.shapes[b]))

    def div(self, a: str, b: str) -> str:
        """a / b, broadcast."""
        return self.node("Div", [a, b], np.broadcast_shapes(self.shapes[a], self.shapes[b]))

    def concat(self, parts: Sequence[str], axis: int = 1, *, name: str = "") -> str:
        """Tensors joined along an axis."""
        shape = list(self.shapes[parts[0]])
        shape[axis] = sum(self.shapes[part][axis] for part in parts)
        return self.node("Concat", list(parts), tuple(shape), name=name, axis=axis)

    def transpose(self, x: str, order: Sequence[int]) -> str:
        """Axes in another order."""
        shape = tuple(self.shapes[x][axis] for axis in order)
        return self.node("Transpose", [x], shape, perm=list(order))

    def reshape(self, x: str, shape: Shape, *, name: str = "") -> str:
        """`shape` may hold one -1, as in ONNX."""
        known = prod(size for size in shape if size != -1)
        full = tuple(prod(self.shapes[x]) // known if size == -1 else size for size in shape)
        name = name or self._unique("reshape")
        target = self.constant(f"{name}.shape", np.array(shape, np.int64))
        return self.node("Reshape", [x, target], full, name=name)

    def space_to_depth(self, x: str, block: int) -> str:
        """Blocks of pixels as channels, by Reshape and Transpose.

        Raises:
            InputError: rows or columns are no multiple of the block.
        """
        n, channels, height, width = self.shapes[x]
        if height % block or width % block:
            raise InputError(
                f"{self.name}: a map of {height}x{width} rows and columns cannot be folded by {block}: "
                "give an --input-shape with multiples of 32"
            )
        shape = (n, channels * block**2, height // block, width // block)
        return self.node("SpaceToDepth", [x], shape, blocksize=block)

    def reduce_l2(self, x: str, axis: int) -> str:
        """The length along an axis, which stays with size 1."""
        shape = tuple(1 if at == axis else size for at, size in enumerate(self.shapes[x]))
        return self.node("ReduceL2", [x], shape, axes=[axis], keepdims=1)

    # Below the operators

    def constant(self, name: str, value: NDArray[np.float32] | NDArray[np.int64]) -> str:
        """A named constant."""
        tensor = self._graph.initializer.add(name=name, dims=value.shape)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
        tensor.raw_data = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
        self.shapes[name] = value.shape
        return name

    def node(
        self,
        op_type: str,
        inputs: Sequence[str],
        shape: Iterable[int],
        *,
        name: str = "",
        **attributes: Any,
    ) -> str:
        """Adds any operator with one output.

        Raises:
            InputError: nothing is left of the map, so the model's input is too small.
        """
        shape = tuple(shape)
        if min(shape) < 1:
            size = "x".join(str(size) for size in next(iter(self._inputs.values())))
            raise InputError(f"{self.name}: the input {size} is too small for this model", model=self.name)
        name = name or self._unique(op_type.lower())
        if name in self.shapes:
            raise ValueError(f"two tensors named {name}")
        self._graph.node.append(helper.make_node(op_type, list(inputs), [name], name, **attributes))
        self.shapes[name] = shape
        return name

    def finish(self, outputs: Sequence[str]) -> onnx.ModelProto:
        """The model, with these tensors as its outputs."""
        self._graph.input.extend(_value_info(name, shape) for name, shape in self._inputs.items())
        self._graph.output.extend(_value_info(name, self.shapes[name]) for name in outputs)
        return self._model

    def _pooled(self, x: str, kernel: int, stride: int, pad: int, ceil: bool) -> Shape:
        n, channels, *sizes = self.shapes[x]
        extra = stride - 1 if ceil else 0
        return (n, channels, *((size + 2 * pad - kernel + extra) // stride + 1 for size in sizes))

    def _unique(self, kind: str) -> str:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}_{self._counts[kind]}"


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _value_info(name: str, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
