"""Several threads share one client: one at a time uses it, and one of those that wait listens for all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PATIENCE_S = 0.1
"""How long a thread that waits leaves it to another one to notice that it is done."""


class Bell:
    """Wakes a thread that polls `socket` together with other things. Rung by one thread at a time."""

    def __init__(self) -> None:
        self._rope, self.socket = socket.socketpair()
        for end in (self._rope, self.socket):
            end.setblocking(False)

    def ring(self) -> None:
        """Makes `socket` readable."""
        with suppress(OSError):  # it has been rung often enough, or is gone
            self._rope.send(b"\0")

    def answer(self) -> None:
        """Makes it silent again."""
        with suppress(BlockingIOError):
            self.socket.recv(4096)

    def close(self) -> None:
        """Closes both ends."""
        self._rope.close()
        self.socket.close()


class Turns:
    """Whose turn it is to use a client.

    Args:
        ring: makes whoever listens to the client come back.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._lock, self._door = threading.Lock(), threading.Lock()
        self._news = threading.Condition()
        self._listening, self._waiting = False, 0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The client is the calling thread's alone."""
        with self._door:  # whoever listens, and comes back, stands in line behind those who rang
            if not self._lock.acquire(blocking=False):
                self._ring()
                self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()
            if self._waiting:
                with self._news:
                    self._news.notify_all()

    @contextmanager
    def if_free(self) -> Iterator[bool]:
        """The same, if nobody else uses it now; whether it is so."""
        free = self._lock.acquire(blocking=False)
        try:
            yield free
        finally:
            if free:
                self._lock.release()

    def wait(self, is_done: Callable[[], bool], listen: Callable[[], None]) -> None:
        """Returns when it is done.

        Args:
            is_done: asked without a lock, by any thread.
            listen: takes in what has come for any thread; waits a while if nothing has. Called in `alone`.
        """
        while not is_done():
            with self._news:
                if self._listening:
                    self._waiting += 1  # first, so that whoever finishes it after our look tells us
                    try:
                        if not is_done():
                            self._news.wait(PATIENCE_S)
                    finally:
                        self._waiting -= 1
                    continue
                self._listening = True
            try:
                while not is_done():
                    with self.alone():
                        if not is_done():  # by whose turn it was just now
                            listen()
            finally:
                with self._news:
                    self._listening = False
                    self._news.notify_all()
