"""What can be sent to a ZeroMQ socket without being ZeroMQ: raw TCP, before, in and after the handshake."""

from __future__ import annotations

import random
import socket
import struct
from contextlib import ExitStack, suppress

READY = b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
"""What a DEALER says after the greeting, where nothing is encrypted."""
HELLO = b"\x04\xc8\x05HELLO\x01\x00" + bytes(72 + 32 + 8 + 80)
"""The shape of what it says where everything is; the key in it is none."""


class Wire:
    """Rubbish for one address.

    Args:
        address: in ZeroMQ's form.
        rng: of all that is sent.
        mechanism: `NULL` or `CURVE`.
        first: what follows the greeting.
    """

    def __init__(self, address: str, rng: random.Random, mechanism: bytes, first: bytes) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._place, self._rng, self._first = (host, int(port)), rng, first
        self._greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + mechanism.ljust(20, b"\0") + bytes(32)
        self.ways = (self.garbage, self.huge_frame, self.half_open, self.cut_short)

    def connect(self) -> socket.socket:
        made = socket.create_connection(self._place, timeout=5)
        made.settimeout(0.2)
        return made

    def _say(self, *data: bytes) -> None:
        with self.connect() as made, suppress(OSError):
            for each in data:
                made.sendall(each)
            made.recv(1000)

    def garbage(self) -> None:
        """Random bytes, at each stage."""
        for start in (b"", self._greeting, self._greeting + self._first):
            self._say(start + self._rng.randbytes(self._rng.randint(1, 5000)))
        changed = bytearray(self._first)
        changed[self._rng.randrange(len(changed))] ^= self._rng.randrange(1, 256)
        self._say(self._greeting, bytes(changed))

    def huge_frame(self) -> None:
        """A frame that is announced, and never comes."""
        for size in (1 << 40, (1 << 63) - 1, 1 << 30, (1 << 30) - 1):
            for flags, start in ((b"\x06", b""), (b"\x02", self._first)):
                self._say(self._greeting, start, flags + struct.pack(">Q", size) + bytes(1000))

    def half_open(self) -> None:
        """Connections that say nothing, or stop in the middle."""
        with ExitStack() as stack:
            for at in range(60):
                made = stack.enter_context(self.connect())
                with suppress(OSError):
                    made.sendall(
                        (b"", self._greeting[:11], self._greeting, self._greeting + self._first[:9])[at % 4]
                    )

    def cut_short(self) -> None:
        """Commands that end in the middle."""
        self._say(self._greeting, self._first, b"\x04\x05\x04PING" * 200)
