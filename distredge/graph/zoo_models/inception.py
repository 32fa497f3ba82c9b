"""Inception-v3 (Szegedy et al. 2016), layer for layer as torchvision has it, without the auxiliary head."""

from __future__ import annotations

import onnx

from distredge.graph.zoo_models.builder import Builder, Pair, Shape


def inception_v3(name: str, shape: Shape, seed: int) -> onnx.ModelProto:
    """Inception v3, 299² by default."""
    b = Builder(name, {"input": shape}, seed)
    x = _conv(b, "input", 32, 3, stride=2, pad=0)
    x = _conv(b, x, 32, 3, pad=0)
    x = _conv(b, x, 64, 3)
    x = b.max_pool(x, 3)
    x = _conv(b, x, 80, 1)
    x = _conv(b, x, 192, 3, pad=0)
    x = b.max_pool(x, 3)
    for pooled in (32, 64, 64):
        x = _mixed_35(b, x, pooled)
    x = _reduce_35_to_17(b, x)
    for channels in (128, 160, 160, 192):
        x = _mixed_17(b, x, channels)
    x = _reduce_17_to_8(b, x)
    for _ in range(2):
        x = _mixed_8(b, x)
    x = b.flatten(b.global_average_pool(x))
    return b.finish([b.gemm(x, 1000, name="logits")])


def _conv(
    b: Builder, x: str, channels: int, kernel: Pair, *, stride: int = 1, pad: Pair | None = None
) -> str:
    x = b.conv(x, channels, kernel, stride=stride, pad=pad, bias=False)
    return b.relu(b.batch_norm(x, epsilon=1e-3))


def _pooled(b: Builder, x: str, channels: int) -> str:
    return _conv(b, b.average_pool(x, 3, stride=1, pad=1), channels, 1)


def _mixed_35(b: Builder, x: str, pooled: int) -> str:
    one = _conv(b, x, 64, 1)
    five = _conv(b, _conv(b, x, 48, 1), 64, 5)
    three = _conv(b, _conv(b, _conv(b, x, 64, 1), 96, 3), 96, 3)
    return b.concat([one, five, three, _pooled(b, x, pooled)])


def _reduce_35_to_17(b: Builder, x: str) -> str:
    three = _conv(b, x, 384, 3, stride=2, pad=0)
    double = _conv(b, _conv(b, _conv(b, x, 64, 1), 96, 3), 96, 3, stride=2, pad=0)
    return b.concat([three, double, b.max_pool(x, 3)])


def _mixed_17(b: Builder, x: str, channels: int) -> str:
    one = _conv(b, x, 192, 1)
    seven = _conv(b, x, channels, 1)
    seven = _conv(b, _conv(b, seven, channels, (1, 7)), 192, (7, 1))
    double = _conv(b, x, channels, 1)
    double = _conv(b, _conv(b, double, channels, (7, 1)), channels, (1, 7))
    double = _conv(b, _conv(b, double, channels, (7, 1)), 192, (1, 7))
    return b.concat([one, seven, double, _pooled(b, x, 192)])


def _reduce_17_to_8(b: Builder, x: str) -> str:
    three = _conv(b, _conv(b, x, 192, 1), 320, 3, stride=2, pad=0)
    seven = _conv(b, _conv(b, _conv(b, x, 192, 1), 192, (1, 7)), 192, (7, 1))
    seven = _conv(b, seven, 192, 3, stride=2, pad=0)
    return b.concat([three, seven, b.max_pool(x, 3)])


def _mixed_8(b: Builder, x: str) -> str:
    one = _conv(b, x, 320, 1)
    three = _conv(b, x, 384, 1)
    three = b.concat([_conv(b, three, 384, (1, 3)), _conv(b, three, 384, (3, 1))])
    double = _conv(b, _conv(b, x, 448, 1), 384, 3)
    double = b.concat([_conv(b, double, 384, (1, 3)), _conv(b, double, 384, (3, 1))])
    return b.concat([one, three, double, _pooled(b, x, 192)])
