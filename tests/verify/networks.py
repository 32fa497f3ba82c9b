"""Hand-made models in the manner of known families, small enough to be verified in a second."""

from __future__ import annotations

from collections.abc import Callable

from tests.models import ModelBuilder

NETWORKS: dict[str, Callable[[], ModelBuilder]] = {}


def named(make: Callable[[], ModelBuilder]) -> Callable[[], ModelBuilder]:
    NETWORKS[make.__name__] = make
    return make


def twice(net: ModelBuilder, x: str, channels: int) -> str:
    return net.relu(net.conv(net.relu(net.conv(x, channels)), channels))


def hard_swish(net: ModelBuilder, x: str) -> str:
    gate = net.add("Clip", net.add("Add", x, net.scalar(3)), net.scalar(0), net.scalar(6))
    return net.add("Mul", x, net.add("Div", gate, net.scalar(6)))


def excited(net: ModelBuilder, x: str) -> str:
    channels = net.shape(x)[1]
    pooled = net.reduce("ReduceMean", x, 2, 3)
    gate = net.conv(net.relu(net.conv(pooled, 4, 1)), channels, 1)
    return net.add("Mul", x, net.add("HardSigmoid", gate, alpha=1 / 6, beta=0.5))


def half(net: ModelBuilder, x: str) -> str:
    return net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])


def double(net: ModelBuilder, x: str, **attributes: object) -> str:
    h, w = net.shape(x)[2:]
    return net.resize(x, 2 * h, 2 * w, by="scales", **attributes)


@named
def unet() -> ModelBuilder:
    """Skips by Concat, ConvTranspose on one level and a linear Resize on the other, two outputs."""
    net = ModelBuilder(13)
    x = net.input(1, 3, 40, 24, name="image")
    a = twice(net, x, 4)
    b = twice(net, half(net, a), 6)
    c = twice(net, half(net, b), 8)
    up = net.add("ConvTranspose", c, net.weights(8, 6, 2, 2), net.weights(6), strides=[2, 2])
    d = twice(net, net.add("Concat", b, up, axis=1), 6)
    wide = double(net, d, mode="linear", coordinate_transformation_mode="half_pixel")
    e = twice(net, net.add("Concat", a, wide, axis=1), 4)
    net.output(net.add("Sigmoid", net.conv(e, 1, 1)), net.conv(d, 2, 1))
    return net


@named
def diffusion_unet() -> ModelBuilder:
    """GroupNorm, a time embedding as second input, attention at the bottom, nearest upsampling."""
    net = ModelBuilder(17)
    x, time = net.input(1, 4, 16, 8), net.input(1, 6, name="time")

    def normed(x: str) -> str:
        n, c, h, w = net.shape(x)
        y = net.add("InstanceNormalization", net.reshape(x, n, 2, -1), net.floats(1, 1), net.floats(0, 0))
        y = net.add(
            "Add", net.add("Mul", net.reshape(y, n, c, h, w), net.positive(c, 1, 1)), net.weights(c, 1, 1)
        )
        return net.add("Mul", y, net.add("Sigmoid", y))

    def residual(x: str) -> str:
        c = net.shape(x)[1]
        y = net.conv(normed(x), c)
        shift = net.add("Gemm", time, net.weights(6, c))
        y = net.add("Add", y, net.reshape(shift, 1, c, 1, 1))
        return net.add("Add", x, net.conv(normed(y), c))

    a = residual(net.conv(x, 8))
    b = residual(net.conv(a, 8, stride=2))
    n, c, h, w = net.shape(b)
    q, k, v = (net.reshape(net.conv(normed(b), c, 1), n, c, h * w) for _ in range(3))
    scores = net.add("Softmax", net.add("MatMul", net.transpose(q, 0, 2, 1), k), axis=-1)
    mixed = net.reshape(net.add("MatMul", v, net.transpose(scores, 0, 2, 1)), n, c, h, w)
    b = residual(net.add("Add", b, net.conv(mixed, c, 1)))
    up = net.conv(
        double(net, b, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"), 8
    )
    net.output(net.conv(residual(net.add("Add", a, up)), 4))
    return net


@named
def fpn() -> ModelBuilder:
    """A feature pyramid: outputs at three heights, the coarsest first."""
    net = ModelBuilder(11)
    x = net.relu(net.conv(net.input(1, 3, 48, 16), 4, stride=2))
    levels = [x]
    for _ in range(2):
        x = net.relu(net.conv(twice(net, x, 6), 6, stride=2))
        levels.append(x)
    top, outputs = "", []
    for level in reversed(levels):
        lateral = net.conv(level, 4, 1)
        if top:
            wide = double(
                net, top, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
            )
            lateral = net.add("Add", lateral, wide)
        top = lateral
        outputs.append(net.conv(top, 4))
    net.output(*outputs)
    return net


@named
def mobilenet_v3() -> ModelBuilder:
    """Inverted residuals with squeeze-and-excitation, TensorFlow's asymmetric padding, a classifier."""
    net = ModelBuilder(12)
    x = hard_swish(net, net.conv(net.input(1, 3, 33, 16), 4, auto_pad="SAME_UPPER", strides=[2, 2]))
    for channels, kernel, stride, gated in ((4, 3, 1, True), (6, 5, 2, True), (6, 3, 1, False)):
        y = hard_swish(net, net.conv(x, 8, 1))
        y = net.conv(y, 8, kernel, group=8, auto_pad="SAME_UPPER", strides=[stride, stride])
        y = hard_swish(net, excited(net, y) if gated else y)
        y = net.conv(y, channels, 1)
        x = net.add("Add", x, y) if net.shape(x) == net.shape(y) else y
    pooled = net.add("GlobalAveragePool", hard_swish(net, net.conv(x, 12, 1)))
    net.output(net.gemm_head(hard_swish(net, net.conv(pooled, 8, 1))))
    return net


@named
def yolo() -> ModelBuilder:
    """Focus, a small CSP, two heads decoded with grids and anchors, boxes of both in one list."""
    net = ModelBuilder(13)
    x = net.input(1, 3, 32, 32, name="images")
    quarters = [net.slice(net.slice(x, 2, i, 2**31, 2), 3, j, 2**31, 2) for j in (0, 1) for i in (0, 1)]

    def silu(x: str) -> str:
        return net.add("Mul", x, net.add("Sigmoid", x))

    x = silu(net.conv(net.add("Concat", *quarters, axis=1), 6))
    side, deep = silu(net.conv(x, 4, 1)), silu(net.conv(silu(net.conv(x, 4, 1)), 4))
    fine = silu(net.conv(net.add("Concat", side, deep, axis=1), 6, stride=2))
    pools = [fine]
    for _ in range(3):
        pools.append(net.add("MaxPool", pools[-1], kernel_shape=[5, 5], pads=[2, 2, 2, 2]))
    coarse = silu(net.conv(net.add("Concat", *pools, axis=1), 6, stride=2))
    boxes = []
    for level in (fine, coarse):
        n, _, h, w = net.shape(level)
        raw = net.reshape(net.conv(level, 2 * 7, 1), n, 2, 7, h, w)
        cells = net.add("Sigmoid", net.transpose(raw, 0, 1, 3, 4, 2))
        xy = net.add(
            "Mul", net.add("Add", net.slice(cells, 4, 0, 2), net.weights(1, 1, h, w, 2)), net.scalar(2)
        )
        size = net.add(
            "Mul", net.add("Pow", net.slice(cells, 4, 2, 4), net.scalar(2)), net.positive(1, 2, 1, 1, 2)
        )
        whole = net.add("Concat", xy, size, net.slice(cells, 4, 4, 7), axis=4)
        boxes.append(net.reshape(whole, n, 2 * h * w, 7))
    net.output(net.add("Concat", *boxes, axis=1))
    return net


@named
def merged_heads() -> ModelBuilder:
    """SSD's heads: per level [N, H·W·anchors, classes], each an output of its own, with a softmax."""
    net = ModelBuilder(13)
    x = twice(net, net.input(2, 3, 24, 12), 6)
    for _ in range(2):
        n, _, h, w = net.shape(x)
        head = net.transpose(net.conv(x, 8), 0, 2, 3, 1)
        head = net.reshape(head, n, h * w * 2, 4)
        net.output(net.add("Softmax", head, axis=-1))
        x = net.relu(net.conv(x, 6, stride=2))
    return net


@named
def convnext() -> ModelBuilder:
    """Patches, depthwise 7x7, LayerNorm, MatMul and GELU in NHWC, layer scale."""
    net = ModelBuilder(17)
    x = net.conv(net.input(1, 3, 64, 32), 6, 4, pads=[0, 0, 0, 0], stride=4)
    for stage in range(2):
        c = net.shape(x)[1]
        for _ in range(2):
            y = net.transpose(net.conv(x, c, 7, group=c), 0, 2, 3, 1)
            y = net.add("LayerNormalization", y, net.positive(c), net.weights(c), axis=-1, epsilon=1e-3)
            y = net.add("Add", net.add("MatMul", y, net.weights(c, 12, scale=0.3)), net.weights(12))
            erf = net.add("Erf", net.add("Div", y, net.scalar(2**0.5)))
            y = net.add("Mul", net.add("Mul", y, net.add("Add", erf, net.scalar(1))), net.scalar(0.5))
            y = net.add("Add", net.add("MatMul", y, net.weights(12, c, scale=0.3)), net.weights(c))
            x = net.add("Add", x, net.transpose(net.add("Mul", y, net.positive(c)), 0, 3, 1, 2))
        if stage == 0:
            y = net.add("LayerNormalization", net.transpose(x, 0, 2, 3, 1), net.positive(c), net.weights(c))
            x = net.conv(net.transpose(y, 0, 3, 1, 2), 8, 2, pads=[0, 0, 0, 0], stride=2)
    pooled = net.add("LayerNormalization", net.reduce("ReduceMean", x, 2, 3, keepdims=0), net.positive(8))
    net.output(net.add("Gemm", pooled, net.weights(8, 5), net.weights(5)))
    return net


@named
def tensorflow_nhwc() -> ModelBuilder:
    """A picture of bytes in NHWC, as TensorFlow's converter leaves it, and an NHWC output."""
    net = ModelBuilder(13)
    x = net.input(1, 30, 20, 3, dtype="uint8", name="picture")
    x = net.add("Mul", net.add("Cast", x, to=1), net.scalar(1 / 127))
    x = net.transpose(net.add("Sub", x, net.floats(0.9, 1.0, 1.1)), 0, 3, 1, 2)
    x = net.relu(net.conv(x, 6, auto_pad="SAME_UPPER", strides=[2, 2]))
    x = net.add("AveragePool", x, kernel_shape=[3, 3], auto_pad="SAME_LOWER", strides=[1, 1])
    y = net.transpose(net.conv(x, 4, 1), 0, 2, 3, 1)
    net.output(net.add("Softmax", y, axis=-1), net.add("ArgMax", y, axis=-1, keepdims=0))
    return net


@named
def qdq_resnet() -> ModelBuilder:
    """A quantised residual block between Q/DQ pairs, as onnxruntime's static quantiser writes it."""
    net = ModelBuilder(13)

    def quantised(x: str, scale: float, zero: int = 0) -> str:
        s, z = net.scalar(scale), net.constant(zero, "int8")
        return net.add("DequantizeLinear", net.add("QuantizeLinear", x, s, z), s, z)

    def conv(x: str, channels: int, kernel: int, **attributes: object) -> str:
        shape = (channels, net.shape(x)[1], kernel, kernel)
        w = net.add(
            "DequantizeLinear", net.constant(net.rng.integers(-127, 128, shape), "int8"),
            net.constant(net.rng.uniform(0.002, 0.004, channels), "float32"),
            net.constant([0] * channels, "int8"), axis=0,
        )  # fmt: skip
        half = kernel // 2
        return net.add("Conv", x, w, net.weights(channels, scale=0.2), pads=[half] * 4, **attributes)

    x = quantised(net.input(1, 3, 24, 12), 0.03)
    x = quantised(net.relu(conv(x, 8, 3, strides=[2, 1])), 0.02, -128)
    y = quantised(net.relu(conv(x, 8, 3)), 0.02, -128)
    y = quantised(conv(y, 8, 3), 0.04, 3)
    x = quantised(net.relu(net.add("Add", x, y)), 0.04, -128)
    y = net.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    head = quantised(net.add("GlobalAveragePool", x), 0.02, -128)
    net.output(quantised(conv(y, 6, 1), 0.05), net.gemm_head(head))
    return net


@named
def aspp() -> ModelBuilder:
    """DeepLab: dilated branches beside each other, image pooling resized back, linear upsampling."""
    net = ModelBuilder(11)
    x = twice(net, net.conv(net.input(1, 3, 44, 20), 4, stride=2), 6)
    _n, _, h, w = net.shape(x)
    parts = [net.relu(net.conv(x, 4, 1))]
    parts += [net.relu(net.conv(x, 4, 3, dilation=rate)) for rate in (2, 4, 6)]
    pooled = net.relu(net.conv(net.add("GlobalAveragePool", x), 4, 1))
    parts.append(net.resize(pooled, h, w, mode="linear", coordinate_transformation_mode="align_corners"))
    y = net.relu(net.conv(net.add("Concat", *parts, axis=1), 6, 1))
    net.output(net.resize(y, 2 * h, 2 * w, mode="linear", coordinate_transformation_mode="align_corners"))
    return net


@named
def two_inputs() -> ModelBuilder:
    """A picture, depth at half its height, and a vector that steers channels."""
    net = ModelBuilder(15)
    image, depth, steer = net.input(1, 3, 28, 12), net.input(1, 1, 14, 6), net.input(1, 5)
    a = net.relu(net.conv(image, 6, stride=2))
    b = net.relu(net.conv(depth, 6))
    gains = net.reshape(net.add("Gemm", steer, net.weights(5, 6)), 1, 6, 1, 1)
    joined = net.add("Mul", net.add("Add", a, b), gains)
    net.output(net.conv(joined, 4), net.add("Sub", depth, net.conv(joined, 1)))
    return net


@named
def siamese() -> ModelBuilder:
    """Two pictures through shared weights, compared row by row."""
    net = ModelBuilder(10)
    w1, w2 = net.weights(4, 3, 3, 3), net.weights(4, 4, 5, 3)
    sides = []
    for _ in range(2):
        x = net.relu(net.add("Conv", net.input(1, 3, 21, 9), w1, pads=[1, 1, 1, 1]))
        sides.append(net.add("Conv", x, w2, pads=[2, 1, 2, 1], strides=[2, 1]))
    cost = net.reduce("ReduceSum", net.add("Mul", *sides), 1)
    net.output(net.add("Concat", cost, net.add("Max", *sides), axis=1))
    return net


@named
def shallow() -> ModelBuilder:
    """Fewer rows than peers, down to two."""
    net = ModelBuilder(13)
    x = net.conv(net.input(1, 3, 6, 8), 4)
    net.output(net.conv(half(net, x), 4), net.conv(net.conv(x, 4, stride=3), 3))
    return net


@named
def barrier_in_the_middle() -> ModelBuilder:
    """Rows, a matrix over rows, rows again, a reduction, rows again."""
    net = ModelBuilder(13)
    x = twice(net, net.input(1, 3, 20, 8), 4)
    x = net.add("MatMul", net.weights(20, 20), x)
    x = excited(net, net.relu(net.conv(x, 6)))
    x = net.conv(net.add("CumSum", x, net.constant(2, "int64")), 4)
    net.output(x, net.reduce("ReduceMax", x, 2, 3))
    return net


@named
def multilayer_perceptron() -> ModelBuilder:
    """No rows but the batch's."""
    net = ModelBuilder(13)
    x = net.input(4, 12)
    for size in (10, 8, 3):
        x = net.relu(net.add("Gemm", x, net.weights(net.shape(x)[1], size), net.weights(size)))
    net.output(net.add("Softmax", x, axis=0))
    return net


@named
def boxes_by_score() -> ModelBuilder:
    """A tail whose output shapes depend on the data."""
    net = ModelBuilder(13)
    x = twice(net, net.input(1, 3, 20, 8), 4)
    flat = net.reshape(net.conv(x, 4, 1), 1, -1, 4)
    scores = net.reduce("ReduceMax", flat, 2, keepdims=0)
    best, at = net.add("TopK", scores, net.ints(7), axis=1, outputs=2)
    picked = net.add("Gather", flat, net.reshape(at, 7), axis=1)
    net.output(
        best, picked, net.add("NonZero", net.add("Greater", scores, net.reduce("ReduceMean", scores, 1)))
    )
    return net


@named
def inception_opset_10() -> ModelBuilder:
    """Branches that crop one map otherwise each, in the opset whose Slice has no shape but its input's."""
    net = ModelBuilder(10)
    x = net.relu(net.conv(net.input(1, 3, 24, 12), 4, 1))
    branches = [net.relu(net.conv(x, 4, size)) for size in (1, 3, 7)]
    net.output(net.conv(net.add("Concat", *branches, axis=1), 4))
    return net


@named
def dequantised_head() -> ModelBuilder:
    """A classifier of which the last layer's weights alone are bytes; Squeeze lets onnxruntime see its input
    as quantised, or not, as the depth is cut."""
    net = ModelBuilder(13)
    x = net.relu(net.conv(net.input(1, 3, 20, 8), 32))
    x = net.add("Squeeze", net.add("GlobalAveragePool", x), net.ints(2, 3))
    weights = net.constant(net.rng.integers(-127, 128, (32, 10)), "int8")
    weights = net.add("DequantizeLinear", weights, net.scalar(0.01), net.constant(0, "int8"))
    net.output(net.add("MatMul", x, weights))
    return net
