"""Messages that are nearly right: real ones, with something changed in the bytes or in the structure."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    1.5,
    math.nan,
    math.inf,
    "",
    "x" * 5000,
    "../../etc/passwd",
    "inproc://zeromq.zap.01",
    "\ud7ff\0\n",
    b"",
    b"\xff" * 40,
    [],
    [[]] * 50,
    [[[[[[[[]]]]]]]],
    {},
    {"a": {"b": []}},
    msgpack.ExtType(5, b"x"),
    msgpack.Timestamp(1, 1),
)
"""What stands in the place of something else."""


class Mutator:
    """Changes messages.

    Args:
        rng: of all choices.
        keys: values worth trying where a whole number was, such as other sessions' numbers.
    """

    def __init__(self, rng: random.Random, keys: Sequence[int] = ()) -> None:
        self._rng = rng
        self._values = (*VALUES, *keys)
        self._ways: list[Callable[[bytes], bytes]] = [
            self._flip,
            self._flip,
            self._cut,
            self._insert,
            self._double,
            self._lie,
            self._restructure,
            self._restructure,
            self._restructure,
        ]

    def mutate(self, data: bytes, times: int = 3) -> bytes:
        """The data with one to so many changes."""
        for _ in range(self._rng.randint(1, times)):
            data = self._rng.choice(self._ways)(data)
        return data

    def _at(self, data: bytes) -> int:
        return self._rng.randrange(len(data) + 1)

    def _flip(self, data: bytes) -> bytes:
        changed = bytearray(data)
        if changed:
            changed[self._rng.randrange(len(changed))] = self._rng.randrange(256)
        return bytes(changed)

    def _cut(self, data: bytes) -> bytes:
        return data[: self._at(data)]

    def _insert(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + self._rng.randbytes(self._rng.randint(1, 8)) + data[at:]

    def _double(self, data: bytes) -> bytes:
        at, end = sorted((self._at(data), self._at(data)))
        return data[:end] + data[at:end] + data[end:]

    def _lie(self, data: bytes) -> bytes:
        """Says that something huge follows: a list, a map, a text, bytes."""
        at = self._at(data)
        huge = self._rng.choice((b"\xdd", b"\xdf", b"\xdb", b"\xc6")) + b"\xff\xff\xff\xff"
        return data[:at] + huge + data[at:]

    def _restructure(self, data: bytes) -> bytes:
        try:
            plain = msgpack.unpackb(data, strict_map_key=False)
            return bytes(msgpack.packb(self._changed(plain)))
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException):
            return self._flip(data)

    def _changed(self, plain: Any) -> Any:
        if isinstance(plain, list) and plain and self._rng.random() < 0.9:
            at = self._rng.randrange(len(plain))
            way = self._rng.random()
            if way < 0.1:
                del plain[at]
            elif way < 0.2:
                plain.insert(at, plain[at])
            else:
                plain[at] = self._changed(plain[at])
            return plain
        if isinstance(plain, dict) and plain and self._rng.random() < 0.9:
            key = self._rng.choice(list(plain))
            plain[key] = self._changed(plain[key])
            return plain
        if isinstance(plain, int) and self._rng.random() < 0.5:
            return plain + self._rng.choice((-2, -1, 1, 2, 1000))
        return self._rng.choice(self._values)
