"""The frames of one session: open ones, with all that it takes to send them again, and answers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count
from typing import NamedTuple

from distredge.errors import PeerError
from distredge.runtime.coding import Coded
from distredge.runtime.deployment import Deployment, Line
from distredge.runtime.engine import Array, copied, owned, received
from distredge.runtime.link import Link
from distredge.runtime.trace import FrameTimes, TraceEvent
from distredge.runtime.transport import rows_header, size_of

TIMES_KEPT, EVENTS_KEPT = 20_000, 20_000


class OpenFrame(NamedTuple):
    """A frame that is not answered: everything that is needed to send it again."""

    line: Line
    feed: Mapping[str, Array]
    submitted_s: float


class Frames:
    """Open and answered frames, and their rows under each plan.

    Args:
        session: of all messages.
        links: to the peers.

    Attributes:
        open: by number, in order of their submission.
        finished: outputs of answered frames, until somebody takes them.
        failed: why frames will not be answered, likewise.
        times: of the latest answered frames.
        events: what this process sent and received, the latest.
    """

    def __init__(self, session: int, links: Sequence[Link]) -> None:
        self.open: dict[int, OpenFrame] = {}
        self.finished: dict[int, list[Array]] = {}
        self.failed: dict[int, PeerError] = {}
        self.times: deque[FrameTimes] = deque(maxlen=TIMES_KEPT)
        self.events: deque[TraceEvent] = deque(maxlen=EVENTS_KEPT)
        self._session, self._links = session, links
        self._numbers = count()

    def add(self, line: Line, feed: Mapping[str, Array]) -> int:
        """A new frame's number. The feed may change afterwards."""
        frame = next(self._numbers)
        kept = {name: copied(value) for name, value in feed.items()}
        self.open[frame] = OpenFrame(line, kept, time.monotonic())
        return frame

    def send_rows(self, deployment: Deployment, frame: int, transfer: int) -> None:
        """Sends rows of a frame's inputs to a peer."""
        self._enter(deployment, frame)
        target, fields = deployment.routes[transfer]
        coding, payload = deployment.outgoing.code(transfer, deployment.store.rows_to_send(frame, transfer))
        start = time.monotonic()
        header = rows_header(self._session, deployment.epoch, frame, *fields, start, coding=coding)
        self._links[target].send(header, payload)
        self.events.append(TraceEvent("send", frame, transfer, start, time.monotonic(), size_of(payload)))

    def take_rows(self, deployment: Deployment, frame: int, transfer: int, coded: Coded) -> float:
        """Keeps rows that came from a peer; when they did.

        Raises:
            ProtocolError: they cannot be these rows.
        """
        now, plan = time.monotonic(), deployment.plan
        wanted = plan.transfers[transfer]
        rows = received(coded, wanted, plan.tensors[wanted.tensor])
        deployment.store.put_transfer(frame, transfer, rows)
        self.events.append(TraceEvent("receive", frame, transfer, now, now, size_of(coded.payload)))
        return now

    def deliver(self, deployment: Deployment, frame: int) -> None:
        """Answers a frame with what came under this plan."""
        self._enter(deployment, frame)
        self.answer(frame, deployment.epoch, deployment.store.result(frame))
        self.leave(deployment, frame)

    def answer(self, frame: int, epoch: int, outputs: Sequence[Array]) -> None:
        """Answers a frame."""
        submitted_s = self.open.pop(frame).submitted_s
        # What came in one piece lies in a message's memory, which nobody may write to.
        self.finished[frame] = [owned(array) for array in outputs]
        self.times.append(FrameTimes(frame, epoch, submitted_s, time.monotonic()))

    def is_over(self, frame: int) -> bool:
        """Whether a frame is answered, or will not be."""
        return frame in self.finished or frame in self.failed

    def take(self, frame: int) -> list[Array]:
        """The outputs of a frame that is over. Raises PeerError if it failed."""
        if (error := self.failed.pop(frame, None)) is not None:
            raise error
        return self.finished.pop(frame)

    def drop(self, frame: int) -> OpenFrame | None:
        """Gives up a frame; None if it was answered."""
        self.finished.pop(frame, None)
        self.failed.pop(frame, None)
        return self.open.pop(frame, None)

    def leave(self, deployment: Deployment, frame: int) -> None:
        """Frees what a frame has under a plan."""
        deployment.frames.discard(frame)
        deployment.store.forget(frame)

    def _enter(self, deployment: Deployment, frame: int) -> None:
        """Puts a frame's inputs into the buffers of the plan that it runs under."""
        if frame not in deployment.frames:
            deployment.frames.add(frame)
            deployment.store.put_inputs(frame, self.open[frame].feed)
