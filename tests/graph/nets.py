"""Small networks, one for each shape of graph that real models have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from tests.graph.support import Array, model_of


class Net:
    """Builds a model layer by layer; each method returns a tensor name."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Array] = {}
        self._random = np.random.default_rng(seed)

    def weights(self, *shape: int) -> str:
        scale = np.sqrt(2 / max(1, int(np.prod(shape[1:]))))
        return self.const((self._random.standard_normal(shape) * scale).astype(np.float32))

    def const(self, value: Any, dtype: str | None = None) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype=dtype)
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        made = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(
            helper.make_node(kind, list(inputs), made, f"n{len(self.nodes)}", domain=domain, **attributes)
        )
        return made[0] if outputs == 1 else made

    def conv(
        self, x: str, cin: int, cout: int, k: int = 3, s: int = 1, relu: bool = True, **attributes: Any
    ) -> str:
        pad = k // 2
        attributes = {"strides": [s, s], "pads": [pad] * 4} | attributes
        groups = attributes.get("group", 1)
        y = self.op("Conv", x, self.weights(cout, cin // groups, k, k), self.weights(cout), **attributes)
        return self.op("Relu", y) if relu else y

    def ints(self, *values: int) -> str:
        return self.const(values, "int64")

    def model(
        self, inputs: dict[str, tuple[int | str, ...]], outputs: list[str], opset: int = 17, **more: Any
    ) -> bytes:
        return model_of(self.nodes, inputs, outputs, self.constants, opset, **more)


X = {"x": (1, 3, 32, 24)}


def chain() -> bytes:
    n = Net()
    y = n.conv("x", 3, 8)
    y = n.op("MaxPool", n.conv(y, 8, 8), kernel_shape=[2, 2], strides=[2, 2])
    return n.model(X, [n.conv(y, 8, 16, s=2)])


def residual() -> bytes:
    n = Net()
    y = n.conv("x", 3, 8)
    z = n.conv(n.conv(y, 8, 8), 8, 8, relu=False)
    y = n.op("Relu", n.op("Add", y, z))
    z = n.conv(n.conv(y, 8, 16, s=2), 16, 16, relu=False)
    y = n.op("Relu", n.op("Add", n.conv(y, 8, 16, k=1, s=2, relu=False), z))
    y = n.op("GlobalAveragePool", y)
    return n.model(X, [n.op("Gemm", n.op("Flatten", y), n.weights(16, 10), n.weights(10))])


def nhwc() -> bytes:
    """TensorFlow-born: NHWC outside, Transpose around every convolution, asymmetric SAME padding."""
    n = Net()
    y = "x"
    for cin, cout in ((3, 8), (8, 8)):
        y = n.op("Transpose", y, perm=[0, 3, 1, 2])
        y = n.op("Conv", y, n.weights(cout, cin, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER")
        y = n.op("Transpose", y, perm=[0, 2, 3, 1])
        y = n.op("Relu", n.op("Add", y, n.weights(cout)))
    return n.model({"x": (1, 32, 24, 3)}, [y])


def convnext() -> bytes:
    """NHWC blocks of MatMul and LayerNormalization around depthwise convolutions."""
    n = Net()
    y = n.conv("x", 3, 8, k=5, s=2, relu=False)
    for _ in range(2):
        z = n.conv(y, 8, 8, k=7, relu=False, group=8)
        z = n.op("Transpose", z, perm=[0, 2, 3, 1])
        z = n.op("LayerNormalization", z, n.weights(8), n.weights(8), axis=-1)
        z = n.op("Add", n.op("MatMul", z, n.weights(8, 32)), n.weights(32))
        z = n.op("Mul", z, n.op("Sigmoid", z))
        z = n.op("Add", n.op("MatMul", z, n.weights(32, 8)), n.weights(8))
        y = n.op("Add", y, n.op("Transpose", z, perm=[0, 3, 1, 2]))
    return n.model(X, [y])


def unet() -> bytes:
    n = Net()
    a = n.conv("x", 3, 8)
    b = n.conv(n.op("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2]), 8, 16)
    c = n.conv(n.op("MaxPool", b, kernel_shape=[2, 2], strides=[2, 2]), 16, 16)
    up = n.op("ConvTranspose", c, n.weights(16, 16, 2, 2), strides=[2, 2])
    b = n.conv(n.op("Concat", up, b, axis=1), 32, 16)
    up = n.op(
        "ConvTranspose", b, n.weights(16, 8, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]
    )
    return n.model(X, [n.conv(n.op("Concat", up, a, axis=1), 16, 4, k=1, relu=False)])


def fpn() -> bytes:
    """Three outputs of different heights, and nearest upsampling between them."""
    n = Net()
    c3 = n.conv("x", 3, 8, s=2)
    c4 = n.conv(c3, 8, 8, s=2)
    c5 = n.conv(c4, 8, 8, s=2)
    p5 = n.conv(c5, 8, 8, k=1)

    def resize(t: str) -> str:
        return n.op("Resize", t, "", n.const([1, 1, 2, 2], "float32"), mode="nearest")

    p4 = n.op("Add", n.conv(c4, 8, 8, k=1), resize(p5))
    p3 = n.op("Add", n.conv(c3, 8, 8, k=1), resize(p4))
    return n.model(X, [n.conv(p, 8, 4, relu=False) for p in (p3, p4, p5)])


def upsample9() -> bytes:
    n = Net()
    y = n.conv("x", 3, 8, s=2)
    y = n.op("Upsample", y, n.const([1, 1, 2, 2], "float32"), mode="linear")
    return n.model(X, [n.conv(y, 8, 4)], opset=9)


def bilinear_odd() -> bytes:
    """Sizes that are no whole multiple: weights differ from row to row."""
    n = Net()
    y = n.conv("x", 3, 8, s=2)
    y = n.op(
        "Resize",
        y,
        "",
        "",
        n.ints(1, 8, 41, 19),
        mode="linear",
        coordinate_transformation_mode="align_corners",
    )
    return n.model(X, [n.conv(y, 8, 4)])


def two_inputs() -> bytes:
    """An image and a smaller map of side information, and a vector that is whole."""
    n = Net()
    y = n.conv("x", 3, 8, s=2)
    y = n.op("Concat", y, n.conv("side", 2, 4), axis=1)
    y = n.op("Mul", y, n.op("Unsqueeze", n.op("MatMul", "vector", n.weights(5, 12)), n.ints(2, 3)))
    inputs = X | {"side": (1, 2, 16, 12), "vector": (1, 5)}
    return n.model(inputs, [n.conv(y, 12, 4)])


def aspp() -> bytes:
    """Dilated branches, and one that is pooled to a single row and resized back to a map."""
    n = Net()
    y = n.conv("x", 3, 8, s=2)
    branches = [n.conv(y, 8, 4, k=1)]
    for rate in (2, 4):
        branches.append(n.conv(y, 8, 4, pads=[rate] * 4, dilations=[rate, rate]))
    pooled = n.conv(n.op("GlobalAveragePool", y), 8, 4, k=1)
    branches.append(n.op("Resize", pooled, "", "", n.ints(1, 4, 16, 12), mode="linear"))
    return n.model(X, [n.conv(n.op("Concat", *branches, axis=1), 16, 4)])


def squeeze_excite() -> bytes:
    n = Net()
    y = n.conv("x", 3, 8, s=2)
    for _ in range(2):
        z = n.op("ReduceMean", y, axes=[2, 3], keepdims=1)
        z = n.op("HardSigmoid", n.conv(n.conv(z, 8, 4, k=1), 4, 8, k=1, relu=False))
        y = n.conv(n.op("Mul", y, z), 8, 8)
    return n.model(X, [y])


def shuffle() -> bytes:
    n = Net()
    y = n.conv("x", 3, 8, s=2)
    y = n.op("Reshape", y, n.ints(1, 2, 4, 16, 12))
    y = n.op("Transpose", y, perm=[0, 2, 1, 3, 4])
    y = n.op("Reshape", y, n.ints(1, 8, 16, 12))
    left, right = n.op("Split", y, n.ints(4, 4), outputs=2, axis=1)
    return n.model(X, [n.op("Concat", n.conv(left, 4, 4, group=4), right, axis=1)])


def pixel_shuffle() -> bytes:
    """Super resolution, with the shuffle written as Reshape, Transpose, Reshape."""
    n = Net()
    y = n.conv("x", 3, 12)
    y = n.op("Reshape", y, n.ints(1, 3, 2, 2, 32, 24))
    y = n.op("Transpose", y, perm=[0, 1, 4, 2, 5, 3])
    y = n.op("Reshape", y, n.ints(1, 3, 64, 48))
    return n.model(X, [n.conv(n.op("DepthToSpace", n.conv(y, 3, 8), blocksize=2), 2, 3)])


def ssd() -> bytes:
    """Heads of several heights, merged to boxes, softmaxed and joined one below the other."""
    n = Net()
    a = n.conv("x", 3, 8, s=2)
    b = n.conv(a, 8, 8, s=2)
    boxes, scores = [], []
    for t in (a, b):
        for kept, size in ((boxes, 4), (scores, 3)):
            y = n.op("Transpose", n.conv(t, 8, 2 * size, relu=False), perm=[0, 2, 3, 1])
            y = n.op("Reshape", y, n.ints(1, -1, size))
            kept.append(n.op("Softmax", y, axis=-1) if size == 3 else y)
    return n.model(X, [n.op("Concat", *boxes, axis=1), n.op("Concat", *scores, axis=1)])


def attention() -> bytes:
    """A barrier in the middle that returns to rows, with a residual around it."""
    n = Net()
    y = n.conv("x", 3, 8, s=2)
    flat = n.op("Transpose", n.op("Reshape", y, n.ints(1, 8, -1)), perm=[0, 2, 1])
    q, k, v = (n.op("MatMul", flat, n.weights(8, 8)) for _ in range(3))
    scores = n.op("Softmax", n.op("MatMul", q, n.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
    z = n.op("Transpose", n.op("MatMul", scores, v), perm=[0, 2, 1])
    z = n.op("Reshape", z, n.ints(1, 8, 16, 12))
    return n.model(X, [n.conv(n.conv(n.op("Add", y, z), 8, 8, s=2), 8, 4)])


def constant_rows() -> bytes:
    """Constants that have rows: a mask, a map of coordinates, zeros joined on."""
    n = Net()
    y = n.conv("x", 3, 8)
    y = n.op("Mul", y, n.const(np.linspace(0, 1, 32, dtype=np.float32).reshape(1, 1, 32, 1)))
    y = n.op("Concat", y, n.const(np.ones((1, 2, 32, 24), np.float32)), axis=1)
    return n.model(X, [n.conv(y, 10, 4)])


def instance_norm() -> bytes:
    n = Net()
    y = n.op("Pad", "x", n.ints(0, 0, 3, 3, 0, 0, 3, 3), mode="reflect")
    y = n.op("Conv", y, n.weights(8, 3, 7, 7))
    y = n.op("Relu", n.op("InstanceNormalization", y, n.weights(8), n.weights(8)))
    z = n.op("Reshape", n.conv(y, 8, 8), n.ints(0, 2, -1))
    z = n.op("InstanceNormalization", z, n.const(np.ones(2, np.float32)), n.const(np.zeros(2, np.float32)))
    z = n.op("Reshape", z, n.ints(1, 8, 32, 24))
    return n.model(X, [n.conv(n.op("Mul", z, n.weights(8, 1, 1)), 8, 3)])


def generator() -> bytes:
    """From a vector to an image: rows begin in the middle of the model."""
    n = Net()
    y = n.op("Reshape", n.op("MatMul", "x", n.weights(6, 8 * 16)), n.ints(1, 8, 4, 4))
    for _ in range(2):
        y = n.op("Relu", n.op("ConvTranspose", y, n.weights(8, 8, 4, 4), strides=[2, 2], pads=[1, 1, 1, 1]))
    return n.model({"x": (1, 6)}, [n.conv(y, 8, 3)])


def pooled_columns() -> bytes:
    """A pool as high as the map but not as wide, and one of the whole map."""
    n = Net()
    y = n.conv("x", 3, 8, s=2)
    strip = n.op("MaxPool", y, kernel_shape=[16, 3], pads=[0, 1, 0, 1])
    mean = n.op("AveragePool", y, kernel_shape=[16, 12])
    return n.model(X, [n.conv(n.op("Mul", n.op("Add", y, strip), mean), 8, 4)])


def control_flow() -> bytes:
    """An If that takes a map from around it, and an output that is an input."""
    n = Net()
    y = n.conv("x", 3, 4)
    body = [
        helper.make_graph(
            [helper.make_node(kind, [y], [f"{kind}_out"])],
            kind,
            [],
            [helper.make_tensor_value_info(f"{kind}_out", TensorProto.FLOAT, None)],
        )
        for kind in ("Abs", "Neg")
    ]
    flag = n.op("Greater", n.op("ReduceSum", y, keepdims=0), n.const(0, "float32"))
    z = n.op("If", flag, then_branch=body[0], else_branch=body[1])
    return n.model(X, [n.conv(z, 4, 4), "x"])


def batch() -> bytes:
    n = Net()
    y = n.conv("x", 3, 8, s=2)
    y = n.op("Mul", y, n.op("GlobalAveragePool", y))
    return n.model({"x": (3, 3, 32, 24)}, [n.conv(y, 8, 4)])


def volume() -> bytes:
    """A volume whose depth is merged into the channels: its rows are the second spatial axis."""
    n = Net()
    y = n.op("Conv", "x", n.weights(4, 2, 3, 3, 3), pads=[1, 1, 1, 1, 1, 1], strides=[2, 1, 1])
    y = n.op("ConvTranspose", n.op("Relu", y), n.weights(4, 4, 1, 2, 2), strides=[1, 2, 2])
    y = n.op("MaxPool", y, kernel_shape=[2, 2, 2], strides=[1, 2, 2])
    y = n.op("Reshape", y, n.ints(1, 12, 14, 10))
    return n.model({"x": (1, 2, 8, 14, 10)}, [n.conv(n.conv(y, 12, 8), 8, 4)])


NETS: dict[str, Callable[[], bytes]] = {
    f.__name__: f
    for f in (
        chain,
        residual,
        nhwc,
        convnext,
        unet,
        fpn,
        upsample9,
        bilinear_odd,
        two_inputs,
        aspp,
        squeeze_excite,
        shuffle,
        pixel_shuffle,
        ssd,
        attention,
        constant_rows,
        instance_norm,
        generator,
        pooled_columns,
        control_flow,
        batch,
        volume,
    )
}
