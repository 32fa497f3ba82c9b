"""The user's own model in plain onnxruntime: what every split answer is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from distredge.errors import ModelError
from distredge.graph.sourceless import START
from distredge.plan.wire import FP16, INT8
from distredge.runtime.engine import MATMUL_ACCURACY, Array, numpy_dtype


class WholeModel:
    """The model as the user gave it, in one onnxruntime session.

    Args:
        source: file or bytes.
        threads: intra-op threads; 0 leaves the choice to onnxruntime.
    """

    def __init__(self, source: Path | bytes, threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what fails is reported below, in one line
        options.add_session_config_entry(*MATMUL_ACCURACY)
        data = source if isinstance(source, bytes) else str(source)
        try:
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors share no public base
            raise ModelError(f"onnxruntime cannot run the model: {_short(error)}") from error

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        """All outputs, in the model's order. An input that only the import made is left out."""
        given = {name: value for name, value in feed.items() if name != START}
        try:
            outputs: list[Array] = self._session.run(None, given)
        except Exception as error:  # as above
            raise ModelError(f"onnxruntime cannot run the model on this input: {_short(error)}") from error
        return outputs


@dataclass(frozen=True, slots=True)
class Difference:
    """How far outputs are from what they should be.

    Attributes:
        absolute: largest magnitude of a difference.
        relative: the same over the largest magnitude of that output.
    """

    absolute: float
    relative: float

    def worse(self, other: Difference) -> Difference:
        """The larger of both, by each measure."""
        return Difference(max(self.absolute, other.absolute), max(self.relative, other.relative))


def difference(outputs: Sequence[Any], expected: Sequence[Any]) -> Difference:
    """The largest difference over all outputs; infinite where shapes, types or NaNs do not agree."""
    worst = Difference(0.0, 0.0)
    for got, want in zip(outputs, expected, strict=True):
        worst = worst.worse(_difference(np.asarray(got), np.asarray(want)))
    return worst


def _difference(got: Array, want: Array) -> Difference:
    wrong = Difference(float("inf"), float("inf"))
    if got.shape != want.shape or got.dtype != want.dtype:
        return wrong
    if got.dtype.hasobject:
        return Difference(0.0, 0.0) if (got == want).all() else wrong
    got, want = got.astype(np.float64), want.astype(np.float64)
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    if same.all():
        return Difference(0.0, 0.0)
    absolute = float(np.abs(got - want)[~same].max())
    finite = np.abs(want[np.isfinite(want)])
    peak = float(finite.max()) if finite.size else 0.0
    if not np.isfinite(absolute):
        return wrong
    return Difference(absolute, absolute / peak if peak else float("inf"))


WIRE_TOLERANCE = {FP16: 2e-2, INT8: 2e-1}
"""Of an output's largest magnitude: rounding at each of up to a dozen borders stays below, misplaced rows do
not."""


def top_classes(outputs: Sequence[Any], expected: Sequence[Any]) -> tuple[int, int]:
    """Where outputs are class vectors: how often the highest class is the expected one, and of how many."""
    agree = count = 0
    for got, want in zip(outputs, expected, strict=True):
        got, want = _classes(got), _classes(want)
        if got is not None and want is not None and got.shape == want.shape:
            count += len(want)
            agree += int((got.argmax(axis=1) == want.argmax(axis=1)).sum())
    return agree, count


def _classes(output: Any) -> Array | None:
    """An output as one row of classes per image; None if it is something else."""
    if not isinstance(output, np.ndarray) or output.dtype.kind != "f" or output.ndim < 2 or not output.size:
        return None
    return output.reshape(output.shape[:2]) if output.shape[1] == output[0].size > 1 else None


def random_feed(
    inputs: Mapping[str, tuple[tuple[int, ...], str]], seed: int, *, strokes: bool = False
) -> dict[str, Array]:
    """Seeded random inputs: pictures, normal floats, small whole numbers, coin-flip booleans.

    Args:
        inputs: shape and dtype name of each input.
        seed: of numpy's PCG64.
        strokes: pictures show lines of strokes, like writing, instead of rectangles.
    """
    picture = _strokes if strokes else _rectangles
    rng = np.random.default_rng(seed)
    feed: dict[str, Array] = {}
    for name, (shape, dtype) in inputs.items():
        kind = numpy_dtype(dtype)
        if name == START:
            feed[name] = np.zeros(shape, kind)
        elif kind.hasobject:
            feed[name] = rng.integers(0, 10, shape).astype(str).astype(object)
        elif kind.kind in "iu":
            high = 256 if kind == np.dtype("uint8") else 128 if kind == np.dtype("int8") else 2
            feed[name] = rng.integers(0, high, shape).astype(kind)
        elif kind.kind == "b":
            feed[name] = rng.integers(0, 2, shape).astype(kind)
        elif len(shape) == 4 and shape[1] <= 4:
            feed[name] = picture(shape, rng).astype(kind)
        elif len(shape) == 4 and shape[3] <= 4:
            n, h, w, c = shape
            feed[name] = picture((n, c, h, w), rng).transpose(0, 2, 3, 1).astype(kind)
        else:
            feed[name] = rng.standard_normal(shape).astype(kind)
    return feed


def _rectangles(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Rectangles of random place, size and colour over each other: the dead-leaves model of images.

    Trained networks see edges in it at every scale; they answer plain noise with almost nothing, and
    an error relative to almost nothing says little.
    """
    batch, channels, height, width = shape
    image = np.empty(shape)
    image[:] = rng.standard_normal((batch, channels, 1, 1))
    for _ in range(height * width // 400 + 8):
        tall, wide = rng.integers(1, max(2, height // 16) + 1), rng.integers(1, max(2, width // 16) + 1)
        top, left = rng.integers(0, height), rng.integers(0, width)
        image[:, :, top : top + tall, left : left + wide] = rng.standard_normal((batch, channels, 1, 1))
    return image


def _strokes(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Lines of upright and level strokes in one colour each, and a little grain."""
    batch, channels, height, width = shape
    image = np.empty(shape)
    image[:] = rng.standard_normal((batch, channels, 1, 1))
    for _ in range(height * width // 4000 + 1):
        size = int(rng.integers(4, max(4, min(24, height // 3)) + 1))
        top, left = int(rng.integers(0, max(1, height - size + 1))), int(rng.integers(0, width // 2 + 1))
        end, thick = min(width, left + int(rng.integers(width // 4, width + 1))), max(1, size // 8)
        ink = 1.5 * rng.standard_normal((batch, channels, 1, 1))
        while left < end:
            wide = max(2, int(size * rng.uniform(0.4, 0.8)))
            for at in rng.integers(0, wide, rng.integers(1, 4)):
                image[:, :, top : top + size, left + at : left + at + thick] = ink
            for at in rng.integers(0, size, rng.integers(0, 3)):
                image[:, :, top + at : top + at + thick, left : left + wide] = ink
            left += wide + max(1, size // 6)
    return image + 0.03 * rng.standard_normal(shape)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
