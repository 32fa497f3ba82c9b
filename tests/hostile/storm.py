"""Everything at once against one running peer: mutants of real messages, raw TCP, floods, slow readers."""

from __future__ import annotations

import random
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from distredge.protocol.messages import UsePlan, encode
from distredge.runtime.transport import is_readable, receive, rows_header
from tests.hostile.mutate import Mutator
from tests.hostile.samples import headers, plan_bytes
from tests.hostile.wire import READY, Wire
from tests.runtime.test_peer import IMAGE, Someone, answer, ask, deploy


class Storm:
    """Attacks one peer from a thread of its own, until it is told to stop.

    Args:
        address: the peer's.
        cache: folder of models.
        seed: of all that is sent.
        victims: sessions of others, whose numbers are used in what is sent.
    """

    def __init__(self, address: str, cache: Path, seed: int, victims: tuple[int, ...] = ()) -> None:
        self.address, self.cache, self.seed, self.victims = address, cache, seed, victims
        self.sent = 0
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="storm")
        self._rng = random.Random(seed)

    def __enter__(self) -> Storm:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise AssertionError(f"seed {self.seed}, after {self.sent} messages") from self.error

    def _run(self) -> None:
        try:
            with zmq.Context() as context:
                try:
                    self._attack(context)
                finally:
                    context.destroy(linger=0)
        except BaseException as error:
            self.error = error

    def _attack(self, context: zmq.Context[Any]) -> None:
        wire = Wire(self.address, self._rng, b"NULL", READY)
        while not self._stop.is_set():
            who = Someone(context, self.address)
            plan = deploy(who, self.cache)
            self._mutants(who, plan)
            self._rng.choice(wire.ways)()
            assert who.is_answered(), "the peer lives, and has come to all that was said"
            who.socket.close(0)

    # ------------------------------------------------------------------ messages

    def _mutants(self, who: Someone, plan: Any, count: int = 2000) -> None:
        """Around a session with a plan that works: so that mutants get far."""
        rng = self._rng
        (transfer,) = [t for t in plan.transfers if t.source == -1]
        rows = rows_header(who.session, 0, 1, transfer.id, transfer.tensor, *transfer.rows, -1, 0.0)
        real = [*headers(who.session), *[rows] * 8]
        real += [encode(UsePlan(who.session, n, 0, (who.address,), ("",))) for n in range(3, 6)]
        # Rows that name another's session and hit its frame would be rows of it: its number is the secret.
        for victim in self.victims:
            real += [header for header in headers(victim) if b"rows" not in header]
        mutator = Mutator(rng, (who.session, *self.victims))
        payloads = [IMAGE.tobytes(), plan_bytes(), b"", b"short", rng.randbytes(3000), bytes(1 << 20)]
        for at in range(count):
            header = rng.choice(real)
            if rng.random() < 0.9:
                header = mutator.mutate(header)
            if any(struct.pack(">Q", victim) in header and b"rows" in header for victim in self.victims):
                continue
            wanted = rng.choices((0, 1, 2, 3), (20, 70, 7, 3))[0]
            parts = [rng.choice(payloads) for _ in range(wanted)]
            if parts and rng.random() < 0.3:
                parts[0] = mutator.mutate(parts[0][:20_000])
            who.raw(header, *parts)
            self.sent += 1
            if at % 50 == 0:
                self._drain(who)

    @staticmethod
    def _drain(who: Someone) -> None:
        while is_readable(who.socket):
            receive(who.socket, routed=False)


def lives(context: zmq.Context[Any], address: str, cache: Path) -> bool:
    """Whether a newcomer is served as if nothing had been."""
    who = Someone(context, address)
    try:
        plan = deploy(who, cache)
        ask(who, plan, 1)
        return answer(who) == 1
    finally:
        who.socket.close(0)


def settle(condition: Callable[[], bool], limit_s: float) -> bool:
    """Whether it becomes so in time."""
    end_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        threading.Event().wait(0.05)
    return True
