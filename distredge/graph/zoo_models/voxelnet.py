"""VoxelNet's region proposal network (Zhou and Tuzel 2018): the 2-D part, on the bird's-eye-view map."""

from __future__ import annotations

import onnx

from distredge.graph.zoo_models.builder import Builder, Shape


def voxelnet(name: str, shape: Shape, seed: int) -> onnx.ModelProto:
    """Outputs: `scores` (2 anchors a cell) and `boxes` (7 values for each), half of the input's size."""
    b = Builder(name, {"input": shape}, seed)
    first = _block(b, "input", 128, 3)
    second = _block(b, first, 128, 5)
    third = _block(b, second, 256, 5)
    x = b.concat(
        [
            _deconv(b, third, kernel=4, stride=4),
            _deconv(b, second, kernel=2, stride=2),
            _deconv(b, first, kernel=3, stride=1, pad=1),
        ]
    )
    b.sigmoid(b.conv(x, 2, 1), name="scores")
    b.conv(x, 14, 1, name="boxes")
    return b.finish(["scores", "boxes"])


def _block(b: Builder, x: str, channels: int, convolutions: int) -> str:
    """Halves the map, then `convolutions` more layers."""
    for stride in (2, *[1] * convolutions):
        x = b.relu(b.batch_norm(b.conv(x, channels, 3, stride=stride, pad=1)))
    return x


def _deconv(b: Builder, x: str, *, kernel: int, stride: int, pad: int = 0) -> str:
    return b.relu(b.batch_norm(b.conv_transpose(x, 256, kernel, stride=stride, pad=pad)))
