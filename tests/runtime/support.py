"""Models, images, and what the whole model makes of them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime

from tests.models import branches

RNG = np.random.default_rng(0)


def image(rows: int = 20, batch: int = 1) -> np.ndarray:
    return RNG.standard_normal((batch, 3, rows, 6)).astype("float32")


def whole(model: bytes, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feed)


def agree(outputs: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for got, want in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(got, want, atol=3e-5 * np.abs(want).max())


def open_model() -> bytes:
    """A model of which batch, rows and columns are open."""
    model = onnx.load_model_from_string(branches())
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for at, name in ((0, "batch"), (2, "rows"), (3, "columns")):
        dims[at].dim_param = name
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return model.SerializeToString()
