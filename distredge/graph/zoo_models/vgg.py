"""VGG (Simonyan and Zisserman 2015) and `tiny`."""

from __future__ import annotations

import onnx

from distredge.graph.zoo_models.builder import Builder, Shape

VGG16_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def conv_blocks(b: Builder, x: str, blocks: tuple[tuple[int, int], ...], *, pool_last: bool = True) -> str:
    """Blocks of (channels, convolutions), a pool behind each; layers get the paper's names."""
    for i, (channels, convolutions) in enumerate(blocks, start=1):
        for j in range(1, convolutions + 1):
            x = b.relu(b.conv(x, channels, name=f"conv{i}_{j}"), name=f"relu{i}_{j}")
        if pool_last or i < len(blocks):
            x = b.max_pool(x, name=f"pool{i}")
    return x


def vgg16(name: str, shape: Shape, seed: int) -> onnx.ModelProto:
    """Configuration D with its three fully connected layers; the output is the logits."""
    b = Builder(name, {"input": shape}, seed)
    x = b.flatten(conv_blocks(b, "input", VGG16_BLOCKS))
    x = b.relu(b.gemm(x, 4096, name="fc6"))
    x = b.relu(b.gemm(x, 4096, name="fc7"))
    return b.finish([b.gemm(x, 1000, name="logits")])


def vgg16_body(name: str, shape: Shape, seed: int) -> onnx.ModelProto:
    """The convolutions and pools only; the output is `pool5`."""
    b = Builder(name, {"input": shape}, seed)
    return b.finish([conv_blocks(b, "input", VGG16_BLOCKS)])


def tiny(name: str, shape: Shape, seed: int) -> onnx.ModelProto:
    """One small convolution: what is left of a frame's latency is overhead."""
    b = Builder(name, {"input": shape}, seed)
    return b.finish([b.conv("input", 8, name="output")])
