"""Whole models out of blocks, named or drawn."""

from __future__ import annotations

import random

import numpy as np

from tests.models import ModelBuilder
from tests.verify.blocks import BLOCKS


def network(
    names: list[str], *, opset: int, seed: int, rows: int = 0, batch: int = 1, tail: bool = True
) -> ModelBuilder:
    """Stem, the named blocks with convolutions between them, and an output at every few of them."""
    choose = random.Random(seed)
    net = ModelBuilder(opset, seed)
    rows = rows or choose.randint(18, 26)
    x = net.relu(net.conv(net.input(batch, 3, rows, 8), 4, 3))
    at_heights: list[str] = []
    for name in names:
        x = BLOCKS[name].make(net, x, choose)
        x = _bounded(net, x)
        if choose.random() < 0.25:
            at_heights.append(x)
        if choose.random() < 0.5:
            x = net.relu(net.conv(x, 4, choose.choice([1, 3])))
    x = net.conv(x, 3, 3)
    if tail and choose.random() < 0.25:
        x = net.gemm_head(x)
    net.output(*dict.fromkeys([*at_heights, x]))
    return net


def _bounded(net: ModelBuilder, x: str) -> str:
    """Keeps maps small, blocks' assumptions true, and values near one."""
    _n, c, h, w = net.shape(x)
    if h > 40 or w > 24:
        kernel = [2 if h > 40 else 1, 2 if w > 24 else 1]
        x = net.add("MaxPool", x, kernel_shape=kernel, strides=kernel)
    h, w = net.shape(x)[2:]
    if h < 8 or w < 4:
        x = net.add("ConvTranspose", x, net.weights(c, 4, 3 if h < 8 else 1, 3 if w < 4 else 1),
                    strides=[3 if h < 8 else 1, 3 if w < 4 else 1])  # fmt: skip
    spread = float(np.abs(net.values[x]).max())
    if not 0.05 < spread < 20:
        x = net.add("Mul", x, net.scalar(1 / max(spread, 1e-3)))
    return x


def random_network(seed: int) -> tuple[ModelBuilder, list[str]]:
    """Three to six random blocks in a random opset, two inputs or a batch of two now and then."""
    choose = random.Random(seed)
    opset = choose.randint(9, 22)
    fitting = sorted(b.name for b in BLOCKS.values() if b.opsets[0] <= opset <= b.opsets[1])
    names = [choose.choice(fitting) for _ in range(choose.randint(3, 6))]
    return network(names, opset=opset, seed=seed, batch=choose.choice([1, 1, 1, 2])), names


def fully_connected(seed: int, opset: int = 17) -> ModelBuilder:
    """A map, three layers with several things between them, and an output of each kind."""
    choose, net = random.Random(seed), ModelBuilder(opset, seed)
    x = net.add(
        "MaxPool", net.relu(net.conv(net.input(1, 3, 12, 6), 4, 3)), kernel_shape=[2, 2], strides=[2, 2]
    )
    x = net.add("Flatten", x)
    wide = choose.choice([100, 128, 300])
    x = net.relu(net.add("Gemm", x, net.weights(wide, net.shape(x)[1]), net.weights(wide), transB=1))
    x = net.add("BatchNormalization", x, *(net.positive(wide) for _ in range(4)))
    y = net.add("Gemm", x, net.weights(wide, 65), net.weights(1, 65), alpha=0.5)
    x = net.add("Add", net.add("MatMul", x, net.weights(wide, 200)), net.weights(200))
    x = net.add("Tanh", x)
    net.output(y, x, net.add("Softmax", net.add("Gemm", x, net.weights(130, 200), net.scalar(0.3), transB=1)))
    return net
