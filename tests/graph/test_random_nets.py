"""Random graphs, random cuts, random parts: every seed must answer like the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distredge.graph.importer import load_model
from tests.graph.nets import Net
from tests.graph.support import feeds_for, reference, relative_error, run_by_parts, run_by_segments
from tests.graph.test_importer import check_graph

Map = tuple[str, int, int, int]
"""Tensor name, channels, rows, columns."""


class RandomNet:
    """Grows a network of maps; each step takes one or two maps and makes another."""

    def __init__(self, seed: int) -> None:
        self.net = Net(seed)
        self.rng = np.random.default_rng(seed)
        height, width = (int(v) for v in self.rng.integers(9, 40, 2))
        self.batch = int(self.rng.choice([1, 1, 1, 2]))
        self.shape = (self.batch, 3, height, width)
        self.maps: list[Map] = [("x", 3, height, width)]

    def pick(self) -> Map:
        return self.maps[int(self.rng.integers(max(0, len(self.maps) - 4), len(self.maps)))]

    def grow(self, steps: int) -> bytes:
        kinds = [getattr(self, name) for name in dir(self) if name.startswith("make_")]
        while steps:
            made = kinds[int(self.rng.integers(len(kinds)))]()
            if made is not None:
                self.maps.append(made)
                steps -= 1
        # Whatever nobody reads is an output; so is a map from the middle.
        read = {name for node in self.net.nodes for name in node.input}
        outputs = [m[0] for m in self.maps[1:] if m[0] not in read]
        middle = self.maps[len(self.maps) // 2][0]
        if middle not in outputs:
            outputs.append(middle)
        return self.net.model({"x": self.shape}, outputs)

    def make_conv(self) -> Map | None:
        name, c, h, w = self.pick()
        k, s = int(self.rng.choice([1, 2, 3, 5])), int(self.rng.choice([1, 1, 2, 3]))
        top, left, bottom, right = (int(v) for v in self.rng.integers(0, k, 4))
        oh, ow = (h + top + bottom - k) // s + 1, (w + left + right - k) // s + 1
        if oh < 1 or ow < 1:
            return None
        cout = int(self.rng.integers(1, 7))
        made = self.net.op(
            "Conv", name, self.net.weights(cout, c, k, k), strides=[s, s], pads=[top, left, bottom, right]
        )
        return made, cout, oh, ow

    def make_deconv(self) -> Map | None:
        name, c, h, w = self.pick()
        if h * w > 900:
            return None
        k, s = int(self.rng.integers(1, 5)), int(self.rng.integers(1, 4))
        pad = int(self.rng.integers(0, (k + 1) // 2))
        extra = int(self.rng.integers(0, s))
        oh, ow = ((v - 1) * s + k - 2 * pad + extra for v in (h, w))
        if min(oh, ow) < 1:
            return None
        made = self.net.op(
            "ConvTranspose",
            name,
            self.net.weights(c, 3, k, k),
            strides=[s, s],
            pads=[pad] * 4,
            output_padding=[extra] * 2,
        )
        return made, 3, oh, ow

    def make_pool(self) -> Map | None:
        name, c, h, w = self.pick()
        if min(h, w) < 3:
            return None
        op, ceil = str(self.rng.choice(["MaxPool", "AveragePool"])), int(self.rng.integers(0, 2))
        made = self.net.op(op, name, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=ceil)
        sizes = []
        for v in (h, w):
            n = -(-(v - 1) // 2) + 1 if ceil else (v - 1) // 2 + 1
            sizes.append(n - 1 if (n - 1) * 2 >= v + 1 else n)
        return made, c, sizes[0], sizes[1]

    def make_activation(self) -> Map:
        name, c, h, w = self.pick()
        return self.net.op(str(self.rng.choice(["Relu", "Sigmoid", "Tanh"])), name), c, h, w

    def make_softmax(self) -> Map:
        name, c, h, w = self.pick()
        return self.net.op("Softmax", name, axis=int(self.rng.choice([1, 2, 3]))), c, h, w

    def make_sum(self) -> Map | None:
        name, c, h, w = self.pick()
        other = next((m for m in self.maps if m[1:] == (c, h, w) and m[0] != name), None)
        return None if other is None else (self.net.op("Add", name, other[0]), c, h, w)

    def make_concat(self) -> Map | None:
        name, c, h, w = self.pick()
        other = next((m for m in reversed(self.maps) if m[2:] == (h, w) and m[0] != name), None)
        return None if other is None else (self.net.op("Concat", name, other[0], axis=1), c + other[1], h, w)

    def make_row_constant(self) -> Map:
        name, c, h, w = self.pick()
        return self.net.op("Mul", name, self.net.weights(1, 1, h, 1)), c, h, w

    def make_gate(self) -> Map:
        name, c, h, w = self.pick()
        op = str(self.rng.choice(["ReduceMean", "ReduceMax"]))
        axes = [[2, 3], [2], [1, 2]][int(self.rng.integers(3))]
        gate = self.net.op("Sigmoid", self.net.op(op, name, axes=axes, keepdims=1))
        return self.net.op("Mul", name, gate), c, h, w

    def make_resize(self) -> Map | None:
        name, c, h, w = self.pick()
        if h * w > 900:
            return None
        mode = str(self.rng.choice(["nearest", "linear"]))
        if self.rng.integers(2):
            scales = self.net.const([1, 1, 2, 2], "float32")
            return self.net.op("Resize", name, "", scales, mode=mode), c, 2 * h, 2 * w
        oh, ow = (int(v) for v in self.rng.integers(5, 40, 2))
        return self.net.op("Resize", name, "", "", self.net.ints(self.batch, c, oh, ow), mode=mode), c, oh, ow

    def make_shuffle(self) -> Map | None:
        name, c, h, w = self.pick()
        if c % 2:
            return None
        y = self.net.op("Reshape", name, self.net.ints(self.batch, 2, c // 2, h, w))
        y = self.net.op("Transpose", y, perm=[0, 2, 1, 3, 4])
        return self.net.op("Reshape", y, self.net.ints(self.batch, c, h, w)), c, h, w

    def make_pixels(self) -> Map | None:
        name, c, h, w = self.pick()
        if c % 4 or h * w > 900:
            return None
        return self.net.op("DepthToSpace", name, blocksize=2), c // 4, 2 * h, 2 * w

    def make_dense(self) -> Map:
        name, c, h, w = self.pick()
        y = self.net.op("Transpose", name, perm=[0, 2, 3, 1])
        y = self.net.op("MatMul", y, self.net.weights(c, 4))
        return self.net.op("Transpose", y, perm=[0, 3, 1, 2]), 4, h, w

    def make_slice(self) -> Map | None:
        name, c, h, w = self.pick()
        if h < 6:
            return None
        step = int(self.rng.integers(1, 3))
        y = self.net.op(
            "Slice", name, self.net.ints(1), self.net.ints(-1), self.net.ints(2), self.net.ints(step)
        )
        return y, c, len(range(1, h - 1, step)), w

    def make_pad(self) -> Map | None:
        name, c, h, w = self.pick()
        if min(h, w) < 4:
            return None
        mode = str(self.rng.choice(["constant", "edge", "reflect"]))
        top, bottom = (int(v) for v in self.rng.integers(0, 4, 2))
        y = self.net.op("Pad", name, self.net.ints(0, 0, top, 1, 0, 0, bottom, 0), mode=mode)
        return y, c, h + top + bottom, w + 1

    def make_flat(self) -> Map | None:
        """Through one long row of pixels and back."""
        name, c, h, w = self.pick()
        y = self.net.op("Relu", self.net.op("Reshape", name, self.net.ints(self.batch, c, h * w)))
        return self.net.op("Reshape", y, self.net.ints(self.batch, c, h, w)), c, h, w

    def make_norm(self) -> Map | None:
        name, c, h, w = self.pick()
        if h * w < 2:
            return None
        return self.net.op("InstanceNormalization", name, self.net.weights(c), self.net.weights(c)), c, h, w


@pytest.mark.parametrize("seed", range(40))
def test_random_net(seed: int, tmp_path: Path) -> None:
    check_seed(seed, tmp_path)


def check_seed(seed: int, folder: Path) -> float:
    rng = np.random.default_rng(1000 + seed)
    model = load_model(RandomNet(seed).grow(int(rng.integers(4, 16))), cache_dir=folder)
    check_graph(model)
    graph, feeds = model.graph, feeds_for(model, seed)
    expected = reference(model, feeds)
    count = int(rng.integers(0, len(graph.cut_points) + 1))
    chosen = sorted(rng.permutation(len(graph.cut_points))[:count].tolist())
    cuts = [graph.cut_points[i] for i in chosen]
    worst = 0.0
    for values in (
        run_by_segments(model, feeds, int(rng.integers(1, 5)), cuts, seed),
        run_by_parts(model, feeds, 3, seed),
    ):
        for name, value in zip(graph.outputs, expected, strict=True):
            assert values[name].shape == value.shape
            worst = max(worst, relative_error(values[name], value))
    assert worst < 3e-5
    return worst
