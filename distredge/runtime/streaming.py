"""Many frames of one session, several under way at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from distredge.runtime.engine import Array
from distredge.runtime.live import LiveImages
from distredge.runtime.resources import Resources
from distredge.runtime.sizes import Sizes

LOOK_S = 0.005
"""How long to wait for an answer before looking for a live source's next image."""


class Stream:
    """Frames of one stream, from their submission until they are taken.

    Args:
        resources: of the session.
        sizes: the session's plans.
        check: an image as a feed; raises InputError.
        in_flight: how many frames are under way at once.
        ordered: in the order of the images; otherwise as they are done.
    """

    def __init__(
        self,
        resources: Resources,
        sizes: Sizes,
        check: Callable[[Any], Mapping[str, Array]],
        in_flight: int,
        ordered: bool,
    ) -> None:
        self._resources, self._sizes, self._check = resources, sizes, check
        self._in_flight, self._ordered = in_flight, ordered
        self._pending: dict[int, None] = {}

    def every(self, images: Iterator[Any]) -> Iterator[list[Array]]:
        """Answers every image; takes one only when there is room for it."""
        more = True
        try:
            while True:
                while more and len(self._pending) < self._in_flight and not self._is_done():
                    try:
                        image = next(images)
                    except StopIteration:
                        more = False
                        break
                    self._submit(image)
                if not self._pending:
                    return
                yield self._next_done()
        finally:
            self._drop_all()

    def newest(self, images: Iterable[Any], tell_dropped: Callable[[int], None]) -> Iterator[list[Array]]:
        """Answers the newest image whenever there is room for it.

        Args:
            images: a live source.
            tell_dropped: how many images nobody took, so far.
        """
        source = LiveImages(images)
        try:
            while self._pending or not source.is_over:
                for image in source.take() if len(self._pending) < self._in_flight else ():
                    self._submit(image)
                tell_dropped(source.dropped)
                if self._is_done() or self._came(LOOK_S):
                    yield self._next_done()
            source.take()  # raises what the source did
        finally:
            source.close()
            tell_dropped(source.dropped)
            self._drop_all()

    def _submit(self, image: Any) -> None:
        feed = self._check(image)
        with self._resources.working() as client:
            self._pending[client.lines.submit(self._sizes.line(feed), feed)] = None

    def _is_done(self) -> bool:
        """Whether the next answer is there. A look at what others add to needs no lock."""
        client = self._resources.client
        if client is None or not self._pending:
            return False
        wanted = (next(iter(self._pending)),) if self._ordered else self._pending
        return any(map(client.is_over, wanted))

    def _came(self, patience_s: float) -> bool:
        """Looks so long for an answer; whether the next one is there then."""
        with self._resources.working() as client:
            client.pump_for(self._pending, patience_s)
        return self._is_done()

    def _next_done(self) -> list[Array]:
        first = next(iter(self._pending))
        frame = self._resources.wait_any([first] if self._ordered else self._pending)
        client = self._resources.client
        assert client is not None
        outputs = client.take(frame)
        del self._pending[frame]
        return outputs

    def _drop_all(self) -> None:
        self._resources.drop(self._pending)
