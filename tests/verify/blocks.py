"""Pieces of random networks, one or more per row rule: each takes an NCHW map and gives one.

`choose` is a `random.Random`; weights come from the builder. A block may assume at least eight
rows and four columns, and gives back at least four rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.models import ModelBuilder

Make = Callable[[ModelBuilder, str, random.Random], str]


@dataclass(frozen=True)
class Block:
    """A named piece; `opsets` is the range of opsets in which its operators exist in this form."""

    name: str
    make: Make
    opsets: tuple[int, int] = (9, 22)
    exact: bool = True  # parts are bit-equal to the unsplit volume (no sums or products, no interpolation)


BLOCKS: dict[str, Block] = {}


def block(first: int = 9, last: int = 22, *, exact: bool = True) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        BLOCKS[make.__name__] = Block(make.__name__, make, (first, last), exact)
        return make

    return register


# ---------------------------------------------------------------------- windows


@block()
def conv(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """Any kernel, stride, dilation and padding, asymmetric ones included."""
    kernel = (choose.randint(1, 5), choose.randint(1, 3))
    dilation = choose.choice([1, 1, 2, 3]) if kernel[0] < 4 else 1
    extent = (kernel[0] - 1) * dilation + 1
    stride = choose.choice([1, 1, 2, 3]) if net.shape(x)[2] > 16 else 1
    pads = [
        choose.randrange(extent),
        choose.randrange(kernel[1]),
        choose.randrange(extent),
        choose.randrange(kernel[1]),
    ]
    return net.conv(x, choose.choice([4, 6]), kernel, strides=[stride, 1], dilations=[dilation, 1], pads=pads)


@block()
def conv_auto_pad(net: ModelBuilder, x: str, choose: random.Random) -> str:
    kernel = (choose.randint(2, 5), choose.randint(1, 3))
    auto = choose.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
    return net.conv(
        x, 4, kernel, auto_pad=auto, strides=[choose.choice([1, 2]) if net.shape(x)[2] > 16 else 1, 1]
    )


@block()
def conv_grouped(net: ModelBuilder, x: str, choose: random.Random) -> str:
    channels = net.shape(x)[1]
    group = choose.choice([g for g in (channels, 2) if channels % g == 0] or [1])
    return net.conv(x, group * choose.choice([2, 4]), 3, group=group, stride=choose.choice([1, 2]))


@block()
def conv_stride_over_kernel(net: ModelBuilder, x: str, choose: random.Random) -> str:
    return net.conv(x, 4, (2, 1), strides=[3, 1], pads=[1, 0, 0, 0])


@block(exact=False)
def conv_1d(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """Rows are the only spatial axis: columns go into the channels and come back."""
    n, c, h, w = net.shape(x)
    flat = net.reshape(net.transpose(x, 0, 1, 3, 2), n, c * w, h)
    made = net.conv(flat, 12, 3, dilation=2)
    return net.transpose(net.reshape(made, n, 3, 4, h), 0, 1, 3, 2)


@block()
def conv_3d(net: ModelBuilder, x: str, choose: random.Random) -> str:
    n, c, h, w = net.shape(x)
    cube = net.conv(net.reshape(x, n, c, h, w, 1), 4, (3, 3, 1))
    return net.reshape(cube, n, 4, h, w)


@block()
def max_pool(net: ModelBuilder, x: str, choose: random.Random) -> str:
    return net.add("MaxPool", x, **_pool(net, x, choose, dilations=net.opset >= 10))


@block()
def average_pool(net: ModelBuilder, x: str, choose: random.Random) -> str:
    counted = choose.choice([0, 1])
    return net.add(
        "AveragePool", x, count_include_pad=counted, **_pool(net, x, choose, dilations=net.opset >= 19)
    )


@block(11)
def lp_pool(net: ModelBuilder, x: str, choose: random.Random) -> str:
    k = choose.randint(2, 3)
    pads = [choose.randrange(k) for _ in range(4)]
    return net.add(
        "LpPool",
        x,
        kernel_shape=[k, k],
        strides=[choose.choice([1, 2]), 1],
        pads=pads,
        p=choose.choice([1, 2]),
    )


@block(10)
def ceil_pool(net: ModelBuilder, x: str, choose: random.Random) -> str:
    op = choose.choice(["MaxPool", "AveragePool"])
    k, stride = choose.choice([(2, 2), (3, 2), (3, 3), (5, 4), (2, 3)])
    pad = choose.randrange((k + 1) // 2)
    return net.add(op, x, kernel_shape=[k, k], strides=[stride, 1], pads=[pad] * 4, ceil_mode=1)


@block()
def pool_auto_pad(net: ModelBuilder, x: str, choose: random.Random) -> str:
    op, auto = choose.choice(["MaxPool", "AveragePool"]), choose.choice(["SAME_UPPER", "SAME_LOWER"])
    return net.add(
        op, x, kernel_shape=[choose.choice([2, 3, 4]), 2], strides=[choose.choice([1, 2]), 1], auto_pad=auto
    )


def _pool(net: ModelBuilder, x: str, choose: random.Random, dilations: bool) -> dict[str, object]:
    k = choose.randint(2, 4)
    dilation = choose.choice([1, 2]) if dilations else 1
    stride = choose.choice([1, 2, 3]) if net.shape(x)[2] > 16 else 1
    pads = [choose.randrange(k), 0, choose.randrange(k), 1]
    form: dict[str, object] = {"kernel_shape": [k, 2], "strides": [stride, 1], "pads": pads}
    return form | ({"dilations": [dilation, 1]} if dilations else {})


@block()
def conv_transpose(net: ModelBuilder, x: str, choose: random.Random) -> str:
    channels, kernel, stride = net.shape(x)[1], choose.randint(1, 5), choose.randint(1, 3)
    dilation = choose.choice([1, 1, 2])
    extent = (kernel - 1) * dilation + 1
    pads = [choose.randrange(min(extent, 3)), 0, choose.randrange(min(extent, 3)), 0]
    more = choose.randrange(stride) if stride > 1 else 0
    return net.add(
        "ConvTranspose", x, net.weights(channels, 4, kernel, 2), net.weights(4), strides=[stride, 1],
        dilations=[dilation, 1], pads=pads, output_padding=[more, 0],
    )  # fmt: skip


@block()
def conv_transpose_auto(net: ModelBuilder, x: str, choose: random.Random) -> str:
    _n, channels, h, w = net.shape(x)
    weights = net.weights(channels, 3, 3, 3)
    if choose.random() < 0.5:
        auto = choose.choice(["SAME_UPPER", "SAME_LOWER"])
        return net.add("ConvTranspose", x, weights, strides=[2, 1], auto_pad=auto)
    return net.add("ConvTranspose", x, weights, strides=[2, 1], output_shape=[2 * h, w])


@block(10)
def conv_integer(net: ModelBuilder, x: str, choose: random.Random) -> str:
    w = net.constant(net.rng.integers(0, 255, (4, net.shape(x)[1], 3, 3)), "uint8")
    zero = net.constant(128, "uint8")
    small = net.add("QuantizeLinear", x, net.scalar(0.05), net.constant(117, "uint8"))
    made = net.add("ConvInteger", small, w, net.constant(117, "uint8"), zero, pads=[1, 1, 1, 1])
    return net.add("Mul", net.add("Cast", made, to=1), net.scalar(1e-4))


@block(10)
def qlinear_conv(net: ModelBuilder, x: str, choose: random.Random) -> str:
    channels = net.shape(x)[1]
    w = net.constant(net.rng.integers(-20, 20, (5, channels, 3, 3)), "int8")
    scale, zero = net.scalar(0.05), net.constant(120, "uint8")
    small = net.add("QuantizeLinear", x, scale, zero)
    bias = net.constant(net.rng.integers(-50, 50, 5), "int32")
    made = net.add(
        "QLinearConv", small, scale, zero, w, net.scalar(0.02), net.constant(0, "int8"), net.scalar(0.1),
        net.constant(100, "uint8"), bias, pads=[2, 1, 0, 1], strides=[choose.choice([1, 2]), 1],
    )  # fmt: skip
    return net.add("DequantizeLinear", made, net.scalar(0.1), net.constant(100, "uint8"))


# ---------------------------------------------------------------------- pointwise


@block()
def activation(net: ModelBuilder, x: str, choose: random.Random) -> str:
    op = choose.choice(
        ["Relu", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "Softplus", "HardSigmoid", "Abs", "Neg", "Erf"]
    )
    return net.add(op, x)


@block()
def broadcast_constants(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """Constants of every shape that broadcasts, those with rows among them."""
    _n, c, h, w = net.shape(x)
    for shape in ((1, 1, h, 1), (h, w), (c, 1, 1), (1, c, h, w), (h, 1), (1,), ()):
        op = choose.choice(["Add", "Mul", "Sub"])
        value = net.positive(*shape) if op == "Mul" else net.weights(*shape, scale=0.5)
        x = net.add(op, x, value) if choose.random() < 0.5 else net.add(op, value, x)
    return x


@block()
def normalised(net: ModelBuilder, x: str, choose: random.Random) -> str:
    c = net.shape(x)[1]
    x = net.add("BatchNormalization", x, net.positive(c), net.weights(c), net.weights(c), net.positive(c))
    x = net.add("LRN", x, size=3)
    return net.add("PRelu", x, net.weights(c, 1, 1, scale=0.2))


@block()
def residual(net: ModelBuilder, x: str, choose: random.Random) -> str:
    c = net.shape(x)[1]
    y = net.conv(net.relu(net.conv(x, c)), c, (choose.choice([1, 3, 5]), 3))
    return net.relu(net.add("Add", x, y))


@block()
def concat(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """Inception-like branches and a constant map, joined along channels, and two maps side by side."""
    n, _c, h, w = net.shape(x)
    parts = [net.conv(x, 2, 1), net.conv(net.conv(x, 2, 1), 3, 3), net.weights(n, 1, h, w, scale=1.0)]
    parts.append(net.add("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    choose.shuffle(parts)
    joined = net.add("Concat", *parts, axis=1)
    return net.conv(net.add("Concat", joined, joined, axis=3), 4, 1)


@block()
def channels_moved(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """Split, Slice, Gather, Pad, Tile and Concat along channels and columns; rows stay."""
    c = net.shape(x)[1]
    half = c // 2
    if net.opset >= 13:
        a, b = net.add("Split", x, net.ints(half, c - half), axis=1, outputs=2)
    else:
        a, b = net.add("Split", x, axis=1, split=[half, c - half], outputs=2)
    b = net.add("Gather", b, net.ints(*range(c - half - 1, -1, -1)), axis=1)
    x = net.slice(net.add("Concat", b, a, axis=1), 3, 0, net.shape(x)[3] - 1)
    pads = (0, 0, 0, 1, 0, 0, 0, 2)
    x = net.add("Pad", x, net.ints(*pads)) if net.opset >= 11 else net.add("Pad", x, pads=pads)
    return net.add("Tile", x, net.ints(1, 2, 1, 1))


@block()
def channel_shuffle(net: ModelBuilder, x: str, choose: random.Random) -> str:
    x = net.conv(x, 6, 1)
    n, c, h, w = net.shape(x)
    grouped = net.transpose(net.reshape(x, n, 2, c // 2, h, w), 0, 2, 1, 3, 4)
    return net.conv(net.reshape(grouped, n, c, h, w), 6, 3, group=2)


@block(exact=False)
def nhwc(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """ConvNeXt's inside: Transpose, LayerNorm by hand, MatMul, GELU, MatMul, back."""
    c = net.shape(x)[1]
    y = net.transpose(net.conv(x, c, (5, 3), group=c), 0, 2, 3, 1)
    y = net.add("Sub", y, net.reduce("ReduceMean", y, -1))
    y = net.add(
        "Div",
        y,
        net.add("Sqrt", net.add("Add", net.reduce("ReduceMean", net.add("Mul", y, y), -1), net.scalar(0.1))),
    )
    y = net.add("Add", net.add("MatMul", y, net.weights(c, 8, scale=c**-0.5)), net.weights(8))
    y = net.add("Mul", y, net.add("Add", net.add("Erf", net.add("Mul", y, net.scalar(0.7))), net.scalar(1)))
    y = net.add("MatMul", y, net.weights(8, c, scale=0.3))
    return net.add("Add", x, net.transpose(y, 0, 3, 1, 2))


@block(17, exact=False)
def layer_norm(net: ModelBuilder, x: str, choose: random.Random) -> str:
    c = net.shape(x)[1]
    y = net.transpose(x, 0, 2, 3, 1)
    y = net.add("LayerNormalization", y, net.positive(c), net.weights(c), axis=-1)
    return net.transpose(y, 0, 3, 1, 2)


@block(exact=False)
def channel_attention(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """CBAM's spatial half: mean and maximum over channels, then a window over them; and a softmax."""
    mean, peak = net.reduce("ReduceMean", x, 1), net.reduce("ReduceMax", x, 1)
    gate = net.add("Sigmoid", net.conv(net.add("Concat", mean, peak, axis=1), 1, (5, 3)))
    x = net.add("Mul", x, gate)
    if net.opset >= 13:
        return net.add("Softmax", x, axis=1)
    y = net.add("Softmax", net.transpose(x, 0, 2, 3, 1), axis=3)
    return net.transpose(y, 0, 3, 1, 2)


@block()
def chosen(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """Where, comparisons and casts."""
    if net.opset >= 11:
        x = net.add("Clip", x, net.scalar(-1.5), net.scalar(1.5))
    else:
        x = net.add("Clip", x, min=-1.5, max=1.5)
    _n, _c, h, _w = net.shape(x)
    flag = net.add("Greater", x, net.weights(1, 1, h, 1, scale=0.5))
    return net.add("Where", flag, x, net.add("Mul", x, net.scalar(0.25)))


@block()
def expanded(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """A column of weights per row, expanded over the width; squeezes and unsqueezes around it."""
    n, c, h, w = net.shape(x)
    column = net.reduce("ReduceMax", x, 3)
    if net.opset >= 13:
        flat = net.add("Unsqueeze", net.add("Squeeze", column, net.ints(3)), net.ints(3))
    else:
        flat = net.add("Unsqueeze", net.add("Squeeze", column, axes=[3]), axes=[3])
    return net.add("Add", x, net.add("Expand", flat, net.ints(n, c, h, w)))


# ---------------------------------------------------------------------- scaling


@block(11, exact=False)
def resize(net: ModelBuilder, x: str, choose: random.Random) -> str:
    _n, _c, h, w = net.shape(x)
    mode = choose.choice(["nearest", "linear", "cubic"])
    coordinates = ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"]
    if net.opset >= 19:
        coordinates.append("half_pixel_symmetric")
    form: dict[str, object] = {"mode": mode, "coordinate_transformation_mode": choose.choice(coordinates)}
    if mode == "nearest":
        form["nearest_mode"] = choose.choice(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
    if mode == "cubic":
        form["exclude_outside"] = choose.choice([0, 1])
    rows = choose.choice([2 * h, 2 * h, 3 * h, h + 3, (3 * h) // 2, max(5, h // 2), 2 * h - 1])
    columns = choose.choice([w, 2 * w])
    by = choose.choice(["sizes", "scales"]) if rows % h == 0 else "sizes"
    return net.resize(x, rows, columns, by=by, **form)


@block(18, exact=False)
def resize_antialias(net: ModelBuilder, x: str, choose: random.Random) -> str:
    h = net.shape(x)[2]
    return net.resize(
        x, choose.choice([h // 2 + 1, h - 2, h + 5]), 5, mode=choose.choice(["linear", "cubic"]), antialias=1
    )


@block(9, 10)
def upsample(net: ModelBuilder, x: str, choose: random.Random) -> str:
    h, w = net.shape(x)[2:]
    return net.resize(x, choose.choice([2, 3]) * h, 2 * w, mode=choose.choice(["nearest", "linear"]))


@block()
def depth_to_space(net: ModelBuilder, x: str, choose: random.Random) -> str:
    factor = choose.choice([2, 3])
    x = net.conv(x, 2 * factor**2, 1)
    mode = choose.choice(["DCR", "CRD"]) if net.opset >= 11 else None
    return net.add("DepthToSpace", x, blocksize=factor, mode=mode)


@block()
def space_to_depth(net: ModelBuilder, x: str, choose: random.Random) -> str:
    h, w = net.shape(x)[2:]
    x = net.slice(net.slice(x, 2, 0, h - h % 2), 3, 0, w - w % 2)
    return net.conv(net.add("SpaceToDepth", x, blocksize=2), 4, 1)


@block()
def pixel_unshuffle(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """Rows halved by Reshape, and doubled again the other way round."""
    x = net.conv(x, 4, 1)
    n, c, h, w = net.shape(x)
    x = net.slice(x, 2, 0, h - h % 2)
    h -= h % 2
    y = net.transpose(net.reshape(x, n, c, h // 2, 2, w), 0, 1, 3, 2, 4)
    y = net.conv(net.reshape(y, n, c * 2, h // 2, w), 8, 3)
    y = net.transpose(net.reshape(y, n, 4, 2, h // 2, w), 0, 1, 3, 2, 4)
    return net.add("Add", net.reshape(y, n, 4, h, w), x)


@block(10)
def stepped_slice(net: ModelBuilder, x: str, choose: random.Random) -> str:
    h = net.shape(x)[2]
    step = choose.choice([1, 2, 3]) if h >= 14 else 1
    return net.slice(x, 2, choose.randrange(3), choose.choice([h, -1, 2**31]), step)


@block(10)
def focus(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """YOLOv5's first layer: four stepped slices joined along channels."""
    h, w = net.shape(x)[2:]
    x = net.slice(net.slice(x, 2, 0, h - h % 2), 3, 0, w - w % 2)
    parts = [net.slice(net.slice(x, 2, i, 2**31, 2), 3, j, 2**31, 2) for j in (0, 1) for i in (0, 1)]
    return net.conv(net.add("Concat", *parts, axis=1), 4, 3)


@block()
def pad(net: ModelBuilder, x: str, choose: random.Random) -> str:
    mode = choose.choice(["constant", "edge", "reflect"])
    pads = [0, 0, choose.randrange(5), 1, 0, 0, choose.randrange(5), 0]
    if net.opset < 11:
        return net.add("Pad", x, mode=mode, pads=pads, value=0.7 if mode == "constant" else None)
    value = [net.scalar(0.7)] if mode == "constant" else []
    return net.add("Pad", x, net.ints(*pads), *value, mode=mode)


@block()
def merged_rows(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """[N, C, H, W] -> [N, H·W, C] and back: a detection head's layout in the middle of the net."""
    n, c, h, w = net.shape(x)
    y = net.transpose(net.reshape(x, n, c, h * w), 0, 2, 1)
    y = net.add("Mul", y, net.positive(c))
    return net.reshape(net.transpose(y, 0, 2, 1), n, c, h, w)


# ---------------------------------------------------------------------- reductions


@block(exact=False)
def excitation(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """A squeeze-and-excitation block."""
    c = net.shape(x)[1]
    pooled = net.add("GlobalAveragePool", x)
    gate = net.conv(net.relu(net.conv(pooled, 3, 1)), c, 1)
    return net.add("Mul", x, net.add("Sigmoid", gate))


@block(exact=False)
def reduced(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """Some reduction over rows that comes back by broadcasting."""
    ops = [
        "ReduceMean",
        "ReduceSum",
        "ReduceMax",
        "ReduceMin",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceLogSumExp",
    ]
    op, axes = choose.choice(ops), choose.choice([(2,), (2, 3), (1, 2), (-1, -2)])
    value = net.reduce(op, x, *axes, keepdims=1)
    if op in ("ReduceSum", "ReduceL1", "ReduceSumSquare"):
        value = net.add("Mul", value, net.scalar(0.05))
    return net.add(choose.choice(["Add", "Sub"]), x, value)


@block(exact=False)
def reduced_without_axes(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """keepdims = 0, then the vector gets its axes back."""
    n, c = net.shape(x)[:2]
    value = net.reduce(choose.choice(["ReduceMean", "ReduceMax"]), x, 2, 3, keepdims=0)
    return net.add("Mul", x, net.add("Sigmoid", net.reshape(value, n, c, 1, 1)))


@block()
def max_of_map(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """A pool as high as its input: a reduction in disguise whose one row is broadcast."""
    h, w = net.shape(x)[2:]
    width = choose.choice([1, 3, w])
    peak = net.add("MaxPool", x, kernel_shape=[h, width], pads=[0, 0, 0, 0])
    if net.shape(peak)[3] not in (1, w):
        peak = net.slice(peak, 3, 0, 1)
    return net.add("Sub", x, peak)


@block(exact=False)
def average_of_map(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """ASPP's image pooling: an average as high as the map, resized back to it."""
    h, w = net.shape(x)[2:]
    pooled = net.conv(net.add("AveragePool", x, kernel_shape=[h, w]), 3, 1)
    back = net.resize(pooled, h, w, mode="nearest")
    return net.conv(net.add("Concat", x, back, axis=1), 4, 1)


@block(exact=False)
def instance_norm(net: ModelBuilder, x: str, choose: random.Random) -> str:
    c = net.shape(x)[1]
    return net.add("InstanceNormalization", x, net.positive(c), net.weights(c, scale=0.5), epsilon=1e-3)


@block(exact=False)
def group_norm(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """GroupNorm as PyTorch exports it: Reshape, InstanceNormalization, Reshape, scale and bias."""
    x = net.conv(x, 6, 1)
    n, c, h, w = net.shape(x)
    y = net.reshape(x, n, 2, -1)
    y = net.add("InstanceNormalization", y, net.floats(1, 1), net.floats(0, 0), epsilon=1e-3)
    y = net.add("Mul", net.reshape(y, n, c, h, w), net.positive(c, 1, 1))
    return net.add("Add", y, net.weights(c, 1, 1))


@block(18, exact=False)
def group_norm_operator(net: ModelBuilder, x: str, choose: random.Random) -> str:
    x = net.conv(x, 6, 1)
    size = 6 if net.opset >= 21 else 2
    return net.add("GroupNormalization", x, net.positive(size), net.weights(size), num_groups=2)


# ---------------------------------------------------------------------- barriers


@block(exact=False)
def attention(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """Every position looks at every other, and the map comes back."""
    x = net.conv(x, 4, 1)
    n, c, h, w = net.shape(x)
    q, k, v = (net.reshape(net.conv(x, c, 1), n, c, h * w) for _ in range(3))
    scores = net.add("MatMul", net.transpose(q, 0, 2, 1), k)
    scores = net.add("Softmax", net.add("Mul", scores, net.scalar(0.3)), axis=2)
    mixed = net.add("MatMul", v, net.transpose(scores, 0, 2, 1))
    return net.add("Add", x, net.conv(net.reshape(mixed, n, c, h, w), 4, 1))


@block(exact=False)
def mixed_rows(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """A matrix over rows (as in an MLP-Mixer), and a convolution behind it."""
    h = net.shape(x)[2]
    y = net.add("MatMul", net.weights(h, h), x)
    return net.conv(y, 4, 3)


@block(10)
def upside_down(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """A Slice with a negative step over rows: a barrier without arithmetic."""
    y = net.slice(x, 2, -1, -(2**31), -1)
    return net.conv(net.add("Concat", x, y, axis=1), 4, 3)


@block()
def stacked(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """Two maps one below the other."""
    top, c = net.conv(x, 4, 3), net.shape(x)[1]
    return net.conv(net.add("Concat", top, net.conv(x, 4, 1), axis=2), max(4, c), 3)


@block()
def shuffled_rows(net: ModelBuilder, x: str, choose: random.Random) -> str:
    """Gather along rows."""
    order = list(range(net.shape(x)[2]))
    choose.shuffle(order)
    return net.conv(net.add("Gather", x, net.ints(*order), axis=2), 4, 3)
