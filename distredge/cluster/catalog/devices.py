"""Synthetic device types, because no Jetson is at hand. Nothing here was measured by this project.

Anchor: a public table of TensorRT times (Jetson TX2, fp16, batch 1: ResNet-50 at 224² 15.7 ms, Inception-v3
at 299² 26.3 ms) gives the TX2 about 0.49 TFLOP/s. The other Jetsons follow by the ratio of their peak fp16
rates (Nano 0.47, TX2 1.33, AGX Xavier 11 TFLOP/s). A Raspberry Pi 4 sustains about 0.010 TFLOP/s in fp32.
"""

from __future__ import annotations

from distredge.cluster.synthetic import SyntheticDevice

_TX2_FLOPS = 0.49e12

DEVICES = {
    device.name: device
    for device in (
        SyntheticDevice("synthetic-jetson-nano", _TX2_FLOPS * 0.47 / 1.33, 60e-6, 4),
        SyntheticDevice("synthetic-jetson-tx2", _TX2_FLOPS, 60e-6, 8),
        SyntheticDevice("synthetic-jetson-xavier", _TX2_FLOPS * 11 / 1.33, 60e-6, 8),
        SyntheticDevice("synthetic-raspberry-pi-4", 0.010e12, 20e-6, 1),
    )
}
