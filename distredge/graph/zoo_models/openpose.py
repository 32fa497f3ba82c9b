"""OpenPose's body network (Cao et al. 2017): ten layers of VGG-19, then six stages of two branches each."""

from __future__ import annotations

import onnx

from distredge.graph.zoo_models import vgg
from distredge.graph.zoo_models.builder import Builder, Shape

FIELDS = 38
HEATMAPS = 19


def openpose(name: str, shape: Shape, seed: int) -> onnx.ModelProto:
    """Outputs: part affinity `fields` (38 channels) and `heatmaps` (19), an eighth of the input's size."""
    b = Builder(name, {"input": shape}, seed)
    x = vgg.conv_blocks(b, "input", ((64, 2), (128, 2), (256, 4), (512, 2)), pool_last=False)
    x = b.relu(b.conv(x, 256))
    features = b.relu(b.conv(x, 128))
    first = ((3, 128),) * 3 + ((1, 512),)
    later = ((7, 128),) * 5 + ((1, 128),)
    x = features
    for stage in range(1, 7):
        layers = first if stage == 1 else later
        names = ("fields", "heatmaps") if stage == 6 else ("", "")
        fields = _branch(b, x, layers, FIELDS, names[0])
        heatmaps = _branch(b, x, layers, HEATMAPS, names[1])
        if stage < 6:
            x = b.concat([fields, heatmaps, features])
    return b.finish(["fields", "heatmaps"])


def _branch(b: Builder, x: str, layers: tuple[tuple[int, int], ...], channels: int, name: str) -> str:
    """Convolutions of (kernel, channels), then a linear one."""
    for kernel, width in layers:
        x = b.relu(b.conv(x, width, kernel))
    return b.conv(x, channels, 1, name=name)
