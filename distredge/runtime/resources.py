"""What a session must give back, who may use it, and the thread that keeps it alive meanwhile."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from distredge.errors import DistrEdgeError
from distredge.runtime.client import TICK_S, Client
from distredge.runtime.launcher import LocalPeers
from distredge.runtime.turns import Turns
from distredge.view.server import ViewServer

KEEP_ALIVE_S = 0.5


class Resources:
    """What must be given back. Holds no reference to the session, so that the session can be forgotten."""

    def __init__(self) -> None:
        self.processes: LocalPeers | None = None
        self.client: Client | None = None
        self.view: ViewServer | None = None
        self._turns, self._stopping = Turns(self._ring), threading.Event()
        self._thread: threading.Thread | None = None
        self._given_up: deque[int] = deque()

    @property
    def is_closed(self) -> bool:
        """Whether everything is given back, or about to be."""
        return self._stopping.is_set()

    @contextmanager
    def working(self) -> Iterator[Client]:
        """The client, for the calling thread alone.

        Raises:
            DistrEdgeError: the session is closed.
        """
        with self._turns.alone():
            if self.client is None or self._stopping.is_set():
                raise DistrEdgeError("the session is closed")
            self._forget(self.client)
            yield self.client

    def wait_any(self, frames: Collection[int]) -> int:
        """One of these frames that is over, the first in their order; waits until there is one, while other
        threads may work and wait as well.

        Raises:
            DistrEdgeError: as `Client.pump_for`, or the session is closed.
        """
        client = self.client
        if client is None or self.is_closed:
            raise DistrEdgeError("the session is closed")
        self._turns.wait(lambda: any(map(client.is_over, frames)), lambda: self._listen(client, frames))
        return next(filter(client.is_over, frames))

    def drop(self, frames: Collection[int]) -> None:
        """Gives up frames, answered or not: now, or when the client is next used. It waits for nobody, since
        the garbage collector may end a stream in a thread that is just using the client."""
        self._given_up.extend(frames)
        with self._turns.if_free() as free:
            if free and self.client is not None and not self.is_closed:
                self._forget(self.client)

    def _forget(self, client: Client) -> None:
        while self._given_up:
            client.lines.drop(self._given_up.popleft())

    def _listen(self, client: Client, frames: Collection[int]) -> None:
        if self._stopping.is_set():
            raise DistrEdgeError("the session is closed")
        self._forget(client)
        client.pump_for(frames, TICK_S)

    def _ring(self) -> None:
        if self.client is not None:
            self.client.bell.ring()

    def keep_alive(self) -> None:
        """Starts the thread that answers and asks for signs of life while the caller does other things."""
        assert self.client is not None
        arguments = self.client, self._turns, self._stopping
        self._thread = threading.Thread(target=_keep_alive, args=arguments, name="keep-alive", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Closes everything."""
        self._stopping.set()
        if self.view is not None:
            self.view.close()
        if self._thread is not None:
            self._thread.join()
        with self._turns.alone():
            if self.client is not None:
                self.client.close()
        if self.processes is not None:
            self.processes.close()


def _keep_alive(client: Client, turns: Turns, stopping: threading.Event) -> None:
    while not stopping.wait(KEEP_ALIVE_S):
        with turns.if_free() as free:
            try:
                if free:
                    client.pump(0.0)
            except DistrEdgeError:
                return  # the client remembers it; the next call raises it
