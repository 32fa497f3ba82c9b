"""ONNX models for tests, put together node by node.

Every node is run once on sample values as it is added, so that shapes are always known, a node that
onnxruntime refuses fails where it is written, and a sample of every value is at hand.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray


class ModelBuilder:
    """One model under construction; methods that add something return the name of the value made.

    Args:
        opset: of the main domain.
        seed: of weights and sample values.
    """

    def __init__(self, opset: int = 17, seed: int = 0) -> None:
        self.opset = opset
        self.rng = np.random.default_rng(seed)
        self.values: dict[str, Array] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, Array] = {}
        self._inputs: list[str] = []
        self._outputs: list[str] = []
        self._domains: set[str] = set()

    def input(self, *shape: int, dtype: str = "float32", name: str = "") -> str:
        name = name or f"x{len(self._inputs)}"
        kind = np.dtype(dtype)
        if kind.kind == "f":
            value = self.rng.standard_normal(shape).astype(kind)
        else:
            value = self.rng.integers(0, 2 if kind.kind == "b" else 100, shape).astype(kind)
        self.values[name] = value
        self._inputs.append(name)
        return name

    def constant(self, value: object, dtype: str | None = None) -> str:
        name = f"c{len(self._constants)}"
        array = np.array(value, dtype=dtype)
        self._constants[name] = self.values[name] = array
        return name

    def ints(self, *values: object) -> str:
        return self.constant(values, "int64")

    def floats(self, *values: object) -> str:
        return self.constant(values, "float32")

    def scalar(self, value: float, dtype: str = "float32") -> str:
        return self.constant(value, dtype)

    def weights(self, *shape: int, scale: float | None = None) -> str:
        """Normal weights, by default scaled so that a layer keeps its input's magnitude."""
        fan_in = max(1, int(np.prod(shape[1:])))
        value = self.rng.standard_normal(shape) * (fan_in**-0.5 if scale is None else scale)
        return self.constant(value, "float32")

    def positive(self, *shape: int) -> str:
        return self.constant(self.rng.uniform(0.5, 1.5, shape), "float32")

    def add(self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: object):
        """A node. Returns the name of its output, or a tuple of several."""
        at = len(self._nodes)
        names = [f"{op.lower()}{at}" if outputs == 1 else f"{op.lower()}{at}_{i}" for i in range(outputs)]
        attributes = {name: value for name, value in attributes.items() if value is not None}
        node = helper.make_node(op, list(inputs), names, f"n{at}", domain=domain, **attributes)
        self._domains.add(domain)
        for name, value in zip(names, self._sample(node), strict=True):
            self.values[name] = value
        self._nodes.append(node)
        return names[0] if outputs == 1 else tuple(names)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.values[name].shape)

    def output(self, *names: str) -> None:
        self._outputs.extend(names)

    def build(self) -> bytes:
        return self.model().SerializeToString()

    def model(self) -> onnx.ModelProto:
        return self._wrapped(self._nodes, self._inputs, self._outputs, self._constants)

    # ------------------------------------------------------------------ layers

    def conv(
        self, x: str, channels: int, kernel=3, *, bias: bool = True, group: int = 1, **attributes
    ) -> str:
        """A convolution; "same" padding unless `pads` or `auto_pad` is given."""
        rank = len(self.shape(x)) - 2
        size = (kernel,) * rank if isinstance(kernel, int) else tuple(kernel)
        stride, dilation = attributes.pop("stride", 1), attributes.pop("dilation", 1)
        attributes.setdefault("strides", [stride] * rank)
        attributes.setdefault("dilations", [dilation] * rank)
        if "pads" not in attributes and "auto_pad" not in attributes:
            half = [(k - 1) * d // 2 for k, d in zip(size, attributes["dilations"], strict=True)]
            attributes["pads"] = half + half
        w = self.weights(channels, self.shape(x)[1] // group, *size)
        b = [self.weights(channels, scale=0.3)] if bias else []
        return self.add("Conv", x, w, *b, group=group, **attributes)

    def relu(self, x: str) -> str:
        return self.add("Relu", x)

    def reshape(self, x: str, *shape: int) -> str:
        return self.add("Reshape", x, self.ints(*shape))

    def transpose(self, x: str, *perm: int) -> str:
        return self.add("Transpose", x, perm=perm)

    def slice(self, x: str, axis: int, start: int, end: int, step: int = 1) -> str:
        if self.opset < 10:
            assert step == 1
            return self.add("Slice", x, axes=[axis], starts=[start], ends=[end])
        return self.add("Slice", x, self.ints(start), self.ints(end), self.ints(axis), self.ints(step))

    def reduce(self, op: str, x: str, *axes: int, keepdims: int = 1) -> str:
        if self.opset >= (13 if op == "ReduceSum" else 18):
            return self.add(op, x, self.ints(*axes), keepdims=keepdims)
        return self.add(op, x, axes=axes, keepdims=keepdims)

    def resize(self, x: str, rows: int, columns: int, *, by: str = "sizes", **attributes) -> str:
        """Resize of an NCHW map in the form of the model's opset; Upsample before opset 10."""
        n, c, h, w = self.shape(x)
        scales = self.floats(1, 1, rows / h, columns / w)
        if self.opset < 11:
            return self.add(
                "Upsample" if self.opset < 10 else "Resize", x, scales, mode=attributes.get("mode")
            )
        empty = self.constant([], "float32") if self.opset < 13 else ""
        if by == "scales":
            return self.add("Resize", x, empty, scales, **attributes)
        return self.add("Resize", x, empty, empty, self.ints(n, c, rows, columns), **attributes)

    def gemm_head(self, x: str, classes: int = 5) -> str:
        """Flatten and a fully connected layer: the usual tail."""
        flat = self.add("Flatten", x)
        return self.add(
            "Gemm", flat, self.weights(self.shape(flat)[1], classes, scale=0.1), self.weights(classes)
        )

    # ------------------------------------------------------------------ inside

    def _sample(self, node: onnx.NodeProto) -> list[Array]:
        fed = [name for name in dict.fromkeys(node.input) if name]
        held = {name: self.values[name] for name in fed if name in self._constants}
        model = self._wrapped([node], [name for name in fed if name not in held], list(node.output), held)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        data = model.SerializeToString()
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return session.run(None, {name: self.values[name] for name in fed if name not in held})

    def _wrapped(self, nodes, inputs, outputs, constants) -> onnx.ModelProto:
        def info(name: str) -> onnx.ValueInfoProto:
            if name not in self.values:
                return onnx.ValueInfoProto(name=name)
            value = self.values[name]
            kind = (
                helper.np_dtype_to_tensor_dtype(value.dtype) if value.dtype != object else TensorProto.STRING
            )
            return helper.make_tensor_value_info(name, kind, value.shape)

        read = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            list(nodes),
            "test",
            [info(name) for name in inputs],
            [info(name) for name in outputs],
            [numpy_helper.from_array(value, name) for name, value in constants.items() if name in read],
        )
        domains = {d for node in nodes if (d := node.domain)}
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in sorted(domains))]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def chain(rows: int = 16, layers: int = 4, *, channels: int = 4, seed: int = 0, batch: int = 1) -> bytes:
    """Convolutions and one pool in a row."""
    net = ModelBuilder(seed=seed)
    x = net.input(batch, 3, rows, 6)
    for layer in range(layers):
        x = net.relu(net.conv(x, channels))
        if layer == layers // 2:
            x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    net.output(x)
    return net.build()


def branches(rows: int = 20, *, seed: int = 0) -> bytes:
    """Two branches of unequal depth that meet, and an output in the middle at another height."""
    net = ModelBuilder(seed=seed)
    x = net.input(1, 3, rows, 6)
    stem = net.relu(net.conv(x, 4))
    left = net.conv(net.relu(net.conv(stem, 4)), 4, (5, 3), pads=[2, 1, 2, 1])
    right = net.conv(stem, 4, 1)
    joined = net.relu(net.add("Add", left, right))
    small = net.add("MaxPool", joined, kernel_shape=[2, 2], strides=[2, 2])
    net.output(net.conv(small, 3), net.add("Concat", joined, stem, axis=1))
    return net.build()


def excited(rows: int = 18, *, seed: int = 0, tail: bool = True) -> bytes:
    """A squeeze-and-excitation block (one reduction inside), and a classifier's tail."""
    net = ModelBuilder(seed=seed)
    x = net.relu(net.conv(net.input(1, 3, rows, 6), 8))
    pooled = net.add("GlobalAveragePool", x)
    gate = net.add("Sigmoid", net.conv(net.relu(net.conv(pooled, 4, 1)), 8, 1))
    x = net.conv(net.add("Mul", x, gate), 6)
    if tail:
        x = net.gemm_head(net.add("GlobalAveragePool", x))
    net.output(x)
    return net.build()
