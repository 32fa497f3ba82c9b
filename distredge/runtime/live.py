"""A camera: images come when they come, and those that nobody has time for are dropped."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


class LiveImages:
    """Takes images as fast as they come, in a thread of its own, and keeps the newest.

    Each image is copied, so that the source may use its buffer again.

    Args:
        images: blocks until the next one is there.

    Attributes:
        dropped: how many images nobody took.
    """

    def __init__(self, images: Iterable[Any]) -> None:
        self.dropped = 0
        self._images = images
        self._lock = threading.Lock()
        self._newest: list[Any] = []
        self._error: BaseException | None = None
        self._is_over = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._read, name="live-images", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for image in self._images:
                if self._is_closed:
                    return
                copied = _copied(image)
                with self._lock:
                    self.dropped += len(self._newest)
                    self._newest = [copied]
        except BaseException as error:
            self._error = error
        finally:
            self._is_over = True

    @property
    def is_over(self) -> bool:
        """Whether no more will come, and the last one was taken."""
        return self._is_over and not self._newest

    def take(self) -> list[Any]:
        """The newest image that was not taken, if there is one.

        Raises:
            Exception: what the source raised.
        """
        with self._lock:
            taken, self._newest = self._newest, []
        if not taken and self._error is not None:
            error, self._error = self._error, None
            raise error
        return taken

    def close(self) -> None:
        """Takes no more; the thread ends with the source's next image."""
        self._is_closed = True
        self._thread.join(0.1)


def _copied(image: Any) -> Any:
    if isinstance(image, Mapping):
        return {name: np.array(array) for name, array in image.items()}
    return np.array(image)
