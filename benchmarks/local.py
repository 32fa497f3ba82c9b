"""What benchmarks over local peers share: models, a frame for each, turns, and how figures are told."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distredge.graph import zoo
from distredge.graph.importer import Model, load_model
from distredge.runtime.reference import random_feed

MODELS = {"vgg16-body": None, "vgg16": None, "resnet50": None, "pp-ocrv6-det": (1, 3, 960, 960)}
"""Of the zoo, and the shape of the input where the model leaves it open."""
PEERS = 2
"""Of one thread each, beside one onnxruntime session with so many threads."""


def model_and_feed(name: str) -> tuple[Model, dict[str, Any]]:
    """A model of the zoo, and a random frame."""
    shape = MODELS.get(name)
    proto = zoo.get(name).build(None, 0)
    shapes = None if shape is None else {proto.graph.input[0].name: shape}
    model = load_model(proto.SerializeToString(), shapes)
    inputs = {n: model.graph.tensors[n] for n in model.graph.inputs}
    return model, random_feed({n: (t.shape, t.dtype) for n, t in inputs.items()}, 0)


def in_turn(rounds: int, turns: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """What every turn of each contender measured: they take turns, since machines are shared and noisy."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            found[name].append(turn())
    return found


def ratios(values: Sequence[float], beside: Sequence[float]) -> list[float]:
    """Of turns side by side."""
    return [a / b for a, b in zip(values, beside, strict=True)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, smallest and largest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
