"""SSD (Liu et al. 2016) at 300x300, on VGG-16 and on ResNet-50. Box decoding is left to the application."""

from __future__ import annotations

import numpy as np
import onnx

from distredge.graph.zoo_models import resnet, vgg
from distredge.graph.zoo_models.builder import Builder, Shape

BOXES_PER_CELL = (4, 6, 6, 6, 4, 4)


def ssd_vgg16(name: str, shape: Shape, seed: int) -> onnx.ModelProto:
    """The original, with 21 classes. Each of the six maps has outputs of its own: boxes and class scores,
    permuted and reshaped to one row per box."""
    classes = 21
    b = Builder(name, {"input": shape}, seed)
    x = "input"
    for i, (channels, convolutions) in enumerate(vgg.VGG16_BLOCKS, start=1):
        for j in range(1, convolutions + 1):
            x = b.relu(b.conv(x, channels, name=f"conv{i}_{j}"), name=f"relu{i}_{j}")
        if i < 5:
            # The third pool rounds up: 75 rows become 38.
            x = b.max_pool(x, ceil=i == 3, name=f"pool{i}")
    x = b.max_pool(x, 3, stride=1, pad=1, name="pool5")
    x = b.relu(b.conv(x, 1024, dilation=6, name="conv6"))
    x = b.relu(b.conv(x, 1024, 1, name="conv7"))
    maps = [_normalised(b, "relu4_3"), x, *_extra_maps(b, x, ((256, 512), (128, 256)), ((128, 256),) * 2)]
    outputs = []
    for i, (x, boxes) in enumerate(zip(maps, BOXES_PER_CELL, strict=True), start=1):
        outputs.append(_head(b, x, boxes, 4, name=f"boxes{i}"))
        outputs.append(_head(b, x, boxes, classes, name=f"scores{i}"))
    return b.finish(outputs)


def ssd_resnet50(name: str, shape: Shape, seed: int) -> onnx.ModelProto:
    """ResNet-50 up to conv4_x, whose stride is 1 here, and 81 classes. The heads of all six maps are
    concatenated: `boxes` is [n, boxes, 4], `scores` [n, boxes, 81] after a softmax."""
    classes = 81
    b = Builder(name, {"input": shape}, seed)
    x = resnet.stages(b, resnet.stem(b, "input"), ((64, 3, 1), (128, 4, 2), (256, 6, 1)))
    maps = [x, *_extra_maps(b, x, ((256, 512), (256, 512), (128, 256)), ((128, 256),) * 2)]
    boxes = [_head(b, x, count, 4) for x, count in zip(maps, BOXES_PER_CELL, strict=True)]
    scores = [_head(b, x, count, classes) for x, count in zip(maps, BOXES_PER_CELL, strict=True)]
    b.concat(boxes, axis=1, name="boxes")
    b.softmax(b.concat(scores, axis=1), axis=2, name="scores")
    return b.finish(["boxes", "scores"])


def _extra_maps(
    b: Builder, x: str, halving: tuple[tuple[int, int], ...], shrinking: tuple[tuple[int, int], ...]
) -> list[str]:
    """The maps behind the backbone, each a 1x1 and a 3x3 convolution with (narrow, wide) channels.

    Those of `halving` have stride 2, those of `shrinking` have no padding.
    """
    maps = []
    for layers, stride, pad in ((halving, 2, 1), (shrinking, 1, 0)):
        for narrow, wide in layers:
            x = b.relu(b.conv(x, narrow, 1))
            x = b.relu(b.conv(x, wide, 3, stride=stride, pad=pad))
            maps.append(x)
    return maps


def _head(b: Builder, x: str, boxes: int, values: int, *, name: str = "") -> str:
    """[n, H * W * boxes, values] from a map."""
    x = b.transpose(b.conv(x, boxes * values, gain=0.25), (0, 2, 3, 1))
    return b.reshape(x, (b.shapes[x][0], -1, values), name=name)


def _normalised(b: Builder, x: str) -> str:
    """Every position scaled to unit length over the channels, then by a learned factor (ParseNet)."""
    channels = b.shapes[x][1]
    norm = b.add(b.reduce_l2(x, 1), b.constant("l2norm.epsilon", np.array([1e-10], np.float32)))
    factors = b.constant("l2norm.scale", b.weights.factors((1, channels, 1, 1), 20.0))
    return b.mul(b.div(x, norm), factors)
