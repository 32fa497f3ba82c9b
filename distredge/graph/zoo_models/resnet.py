"""ResNet-50 (He et al. 2016), in the form that is common today: the stride is in the 3x3 convolution."""

from __future__ import annotations

import onnx

from distredge.graph.zoo_models.builder import Builder, Shape

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""(channels, blocks, stride) of conv2_x to conv5_x."""


def resnet50(name: str, shape: Shape, seed: int) -> onnx.ModelProto:
    """ResNet-50 with its classifier."""
    b = Builder(name, {"input": shape}, seed)
    x = stages(b, stem(b, "input"), STAGES)
    x = b.flatten(b.global_average_pool(x))
    return b.finish([b.gemm(x, 1000, name="logits")])


def stem(b: Builder, x: str) -> str:
    """The layers in front of the first stage."""
    return b.max_pool(b.relu(_conv_norm(b, x, 64, 7, 2)), 3, stride=2, pad=1)


def stages(b: Builder, x: str, plan: tuple[tuple[int, int, int], ...]) -> str:
    """Bottleneck blocks: (channels, blocks, stride of the first) for each stage."""
    for channels, blocks, stride in plan:
        for block in range(blocks):
            x = _bottleneck(b, x, channels, stride if block == 0 else 1)
    return x


def _bottleneck(b: Builder, x: str, channels: int, stride: int) -> str:
    y = b.relu(_conv_norm(b, x, channels, 1, 1))
    y = b.relu(_conv_norm(b, y, channels, 3, stride))
    # A small last scale keeps the sum of many blocks from growing, as trained networks have it too.
    y = _conv_norm(b, y, 4 * channels, 1, 1, scale=0.3)
    if b.shapes[x] != b.shapes[y]:
        x = _conv_norm(b, x, 4 * channels, 1, stride)
    return b.relu(b.add(y, x))


def _conv_norm(b: Builder, x: str, channels: int, kernel: int, stride: int, scale: float = 1.0) -> str:
    return b.batch_norm(b.conv(x, channels, kernel, stride=stride, bias=False), scale=scale)
