"""Quantised models: bit-equal to the whole wherever they are cut."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from distredge.graph.importer import load_model
from tests.graph.nets import Net
from tests.graph.test_importer import check_graph, worst_error

SHAPE = (1, 3, 32, 24)


class Samples(CalibrationDataReader):
    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.left = iter([{"x": generator.standard_normal(SHAPE).astype(np.float32)} for _ in range(3)])

    def get_next(self):  # type: ignore[no-untyped-def]
        return next(self.left, None)


def floating() -> bytes:
    """Residual, pooled gate, branches joined, upsampled."""
    n = Net()
    y = n.conv("x", 3, 8)
    z = n.conv(n.conv(y, 8, 8), 8, 8, relu=False)
    y = n.op("MaxPool", n.op("Relu", n.op("Add", y, z)), kernel_shape=[2, 2], strides=[2, 2])
    gate = n.op("Sigmoid", n.conv(n.op("GlobalAveragePool", y), 8, 8, k=1, relu=False))
    y = n.op("Mul", y, gate)
    pooled = n.op("AveragePool", y, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    y = n.op("Concat", n.conv(y, 8, 4), pooled, axis=1)
    y = n.op("Resize", y, "", n.const([1, 1, 2, 2], "float32"), mode="nearest")
    return n.model({"x": SHAPE}, [n.conv(y, 12, 3, relu=False)], opset=13)


@pytest.fixture(
    scope="module", params=[(f, a, c) for f in QuantFormat for a in ("u8", "s8") for c in (False, True)]
)
def quantised(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    form, activation, per_channel = request.param
    folder = tmp_path_factory.mktemp("quantised")
    (folder / "float.onnx").write_bytes(floating())
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            folder / "float.onnx",
            folder / "quantised.onnx",
            Samples(),
            quant_format=form,
            per_channel=per_channel,
            activation_type=QuantType.QUInt8 if activation == "u8" else QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)
    return folder / "quantised.onnx"


@pytest.mark.parametrize(("devices", "step"), [(1, 0), (3, 0), (3, 2), (4, 1)])
def test_cuts_change_no_rounding(quantised: Path, tmp_path: Path, devices: int, step: int) -> None:
    model = load_model(quantised, cache_dir=tmp_path)
    check_graph(model)
    cuts = model.graph.cut_points[::step] if step else ()
    assert worst_error(model, devices, cuts) == 0


def test_most_is_split_and_what_is_not_says_why(quantised: Path, tmp_path: Path) -> None:
    graph = load_model(quantised, cache_dir=tmp_path).graph
    assert graph.split_share > 0.999
    assert len(graph.cut_points) >= 10
    reasons = [node.reason for node in graph.nodes if node.reason]
    assert len(reasons) == 1
    assert "round differently" in reasons[0]


def test_no_cut_inside_a_quantisation_group(quantised: Path, tmp_path: Path) -> None:
    graph = load_model(quantised, cache_dir=tmp_path).graph
    if not any(node.op_type == "DequantizeLinear" for node in graph.nodes):
        return
    for cut in graph.cut_points:
        at = graph.producer[cut]
        for name, i in graph.producer.items():
            crosses = i <= at and any(reader > at for reader in graph.consumers.get(name, ()))
            if crosses and graph.tensors[name].row_axis is not None:
                assert graph.tensors[name].dtype in ("uint8", "int8")
