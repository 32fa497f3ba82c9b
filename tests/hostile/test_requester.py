"""Requesters and peers whose peers send rubbish: one line may say so, and nothing else may go wrong."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from distredge.errors import DistrEdgeError
from distredge.runtime.launcher import LocalPeers
from distredge.runtime.session import InferenceSession
from distredge.runtime.transport import bind_router, connect_dealer
from tests.hostile.mutate import Mutator
from tests.hostile.samples import headers
from tests.models import chain
from tests.runtime.test_peer import IMAGE

SECONDS = float(os.environ.get("HOSTILE_SECONDS", "3"))
SEED = int(os.environ.get("HOSTILE_SEED", "1"))

FLOOD = (0.999, 0.0)
MANNERS = ((0.01, 0.5), (0.2, 0.5), (0.9, 0.5), *[FLOOD] * 6)
"""Of a meddler: `share` and `pointed`. A flood of strangers' messages must disturb nobody."""

pytestmark = pytest.mark.timeout(300 + 4 * SECONDS)


class Meddler:
    """Stands between requesters and a peer, and sends requesters mutants in front of what the peer says.

    Attributes:
        sent: mutants so far.
        share: how probable one more mutant is before the peer's message.
        pointed: how many of them are made of that message, and so may get as far as to end the session; the
            others are of strangers' sessions.
    """

    def __init__(self, peer: str, seed: int) -> None:
        self._peer, self.rng = peer, random.Random(seed)
        self.name = f"m{seed}"
        self._context: zmq.Context[Any] = zmq.Context()
        self._context.setsockopt(zmq.SNDTIMEO, 1000)
        self._front, self.address = bind_router(self._context, "tcp://127.0.0.1:0")
        self._strangers = [header for _ in range(50) for header in headers(self.rng.getrandbits(62))]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="meddler")
        self.sent = 0
        self.share, self.pointed = 0.5, 0.5

    def __enter__(self) -> Meddler:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._context.destroy(linger=0)

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._front, zmq.POLLIN)
        behind: dict[bytes, zmq.Socket[bytes]] = {}
        welcomed: set[bytes] = set()
        while not self._stop.is_set():
            for socket, _ in poller.poll(20):
                if socket is self._front:
                    who, *parts = self._front.recv_multipart()
                    if who not in behind:
                        behind[who] = connect_dealer(self._context, self._peer)
                        poller.register(behind[who], zmq.POLLIN)
                    behind[who].send_multipart(parts)
                    continue
                (who,) = [each for each, known in behind.items() if known is socket]
                parts = socket.recv_multipart()
                # A word of another version, before a welcome, ends a session, and there would be no flood.
                is_sharp = self.pointed > 0.1
                while (is_sharp or who in welcomed) and self.rng.random() < self.share:
                    if not self._tell(who, self._mutant(parts), zmq.NOBLOCK):
                        break
                    self.sent += 1
                self._tell(who, parts)
                welcomed.add(who)
        for socket in behind.values():
            socket.close(0)

    def _mutant(self, parts: list[bytes]) -> list[bytes]:
        mutator = Mutator(self.rng)
        is_pointed = self.rng.random() < self.pointed
        header = parts[0] if is_pointed else self.rng.choice(self._strangers)
        payloads = [self.rng.choice((*parts[1:], b"", b"\x93\x01\x02\x03", self.rng.randbytes(50)))]
        return [mutator.mutate(header), *payloads[: self.rng.randint(0, 1)]]

    def _tell(self, who: bytes, parts: list[bytes], flags: int = 0) -> bool:
        """Whether it was sent: who it is for may have gone, or read too slowly."""
        with suppress(zmq.ZMQError):
            self._front.send_multipart([who, *parts], flags)
            return True
        return False


def test_requesters_and_neighbours_among_mutants(cache: Path, tmp_path: Path) -> None:
    """Peers connect to each other where the requester says, so that they are meddled with, too."""
    with LocalPeers(2, cache_dir=cache) as peers:
        first, second = (peer.address for peer in peers.wait_ready())
        with Meddler(first, SEED) as a, Meddler(second, SEED + 1) as b:
            hosts = tmp_path / "hosts.ini"
            places = ((each.name, each.address.removeprefix("tcp://")) for each in (a, b))
            hosts.write_text("".join(f"[provider:{name}]\naddress = {place}\n" for name, place in places))
            ends: Counter[str] = Counter()
            rejected: Counter[str] = Counter()
            end_s = time.monotonic() + SECONDS
            while time.monotonic() < end_s or a.sent + b.sent < 50 or rejected.total() < 1000:
                manner = a.rng.choice(MANNERS)
                a.share, a.pointed = b.share, b.pointed = manner
                end = use(hosts, cache, rejected)
                assert end == "answered" or manner != FLOOD
                ends[end] += 1
            print(f"{a.sent + b.sent} mutants, {rejected.total()} rejected: {dict(ends)}")
            assert "several lines" not in ends
        assert not peers.endings()
        for process in peers._processes:
            process.stderr.seek(0)
            assert b"Traceback" not in process.stderr.read()


def use(hosts: Path, cache: Path, rejected: Counter[str]) -> str:
    """Some frames and a trace; how it ended. Anything but a DistrEdgeError goes through.

    Args:
        rejected: what was, is added.
    """
    try:
        settings: dict[str, Any] = {"policy": "equal", "cache_dir": cache, "timeout_s": 1.0}
        with InferenceSession(chain(), hosts=hosts, **settings) as session:
            try:
                for answer in session.stream([IMAGE] * 5):
                    assert all(isinstance(array, np.ndarray) for array in answer)
                session.trace()
            finally:
                rejected.update(session._client.rejected)
        return "answered"
    except DistrEdgeError as error:
        return "several lines" if "\n" in str(error) else type(error).__name__
