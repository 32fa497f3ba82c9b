"""Whole frames in the requester's own process: the last resort, where no peer is left."""

from __future__ import annotations

from collections.abc import Mapping

import onnxruntime as ort

from distredge.graph.importer import Model
from distredge.runtime.engine import Array, whole_session


class WholeFrames:
    """Computes frames of a model in one session, which is made when it is first needed.

    Args:
        model: the model.
        threads: of the session.
    """

    def __init__(self, model: Model, threads: int) -> None:
        self._model, self._threads = model, threads
        self._session: ort.InferenceSession | None = None

    def __call__(self, feed: Mapping[str, Array]) -> list[Array]:
        """The model's outputs."""
        if self._session is None:
            model = self._model
            self._session = whole_session(model.onnx, model.weights.parent, threads=self._threads)
        outputs: list[Array] = self._session.run(list(self._model.graph.outputs), dict(feed))
        return outputs
