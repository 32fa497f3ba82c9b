"""YOLOv2 (Redmon and Farhadi 2017): Darknet-19, the pass-through from the finer map, 425 outputs a cell."""

from __future__ import annotations

import onnx

from distredge.graph.zoo_models.builder import Builder, Shape


def yolov2(name: str, shape: Shape, seed: int) -> onnx.ModelProto:
    """YOLOv2 with its passthrough layer."""
    b = Builder(name, {"input": shape}, seed)
    x = b.max_pool(_conv(b, "input", 32, 3))
    x = b.max_pool(_conv(b, x, 64, 3))
    x = b.max_pool(_narrow_and_wide(b, x, 128, 3))
    x = b.max_pool(_narrow_and_wide(b, x, 256, 3))
    fine = _narrow_and_wide(b, x, 512, 5)
    x = _narrow_and_wide(b, b.max_pool(fine), 1024, 5)
    x = _conv(b, _conv(b, x, 1024, 3), 1024, 3)
    fine = b.space_to_depth(_conv(b, fine, 64, 1), 2)
    x = _conv(b, b.concat([fine, x]), 1024, 3)
    return b.finish([b.conv(x, 425, 1, name="output")])


def _narrow_and_wide(b: Builder, x: str, channels: int, convolutions: int) -> str:
    """3x3 convolutions with `channels`, 1x1 convolutions with half as many between them."""
    for i in range(convolutions):
        x = _conv(b, x, channels, 3) if i % 2 == 0 else _conv(b, x, channels // 2, 1)
    return x


def _conv(b: Builder, x: str, channels: int, kernel: int) -> str:
    return b.leaky_relu(b.batch_norm(b.conv(x, channels, kernel, bias=False)))
