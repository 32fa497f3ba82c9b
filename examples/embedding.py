"""A model inside an application: opened once, asked from any thread, and the application survives it.

DISTREDGE_HOSTS=hosts.ini python examples/embedding.py model.onnx
"""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import distredge as de

LOG = logging.getLogger("application")


class Classifier:
    """What the rest of the application sees: pictures in, classes out. Any thread may call it."""

    def __init__(self, model: str) -> None:
        # The peers are those that the environment names. While none is left, this process computes.
        self._session = de.connect(model, policy="auto", alone=True)
        (self._input,) = self._session.get_inputs()

    @property
    def shape(self) -> list[int]:
        """Of a picture."""
        return list(self._input.shape)

    def classify(self, picture: np.ndarray[Any, Any]) -> int | None:
        """The class of a float32 picture; None if it has the wrong shape, or no peer can compute it."""
        try:
            (scores, *_) = self._session.run(None, {self._input.name: picture})
        except de.InputError as error:  # the caller's mistake; the session goes on
            LOG.warning("refused: %s", error)
            return None
        except de.PeerError as error:  # the message says which peer, and what to do
            LOG.error("failed: %s", error)
            return None
        return int(scores.argmax())

    def close(self) -> None:
        """Ends the session."""
        self._session.close()


def main(argv: list[str] | None = None) -> None:
    (model,) = sys.argv[1:] if argv is None else argv
    classifier = Classifier(model)
    try:
        rng = np.random.default_rng(0)
        pictures = [rng.standard_normal(classifier.shape).astype(np.float32) for _ in range(8)]
        pictures.append(np.zeros((1, 3, 7, 7), np.float32))  # somebody's mistake
        with ThreadPoolExecutor(4) as workers:
            for at, found in enumerate(workers.map(classifier.classify, pictures)):
                print(f"picture {at}: {'no answer' if found is None else f'class {found}'}")
    finally:
        classifier.close()


if __name__ == "__main__":
    main()
