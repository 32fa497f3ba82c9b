"""What a peer does first with bytes, fed with mutants and guided by which lines they reach."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any

import numpy as np

from distredge.errors import ProtocolError, StrategyError
from distredge.plan.execution import ExecutionPlan, TensorInfo
from distredge.plan.serde import from_plain
from distredge.protocol.messages import unpack
from distredge.runtime.engine import ALL, from_payload, to_payload
from distredge.runtime.transport import decode_header
from tests.hostile.mutate import Mutator

LOOSE = TensorInfo("float32", (2, 3), None, dynamic=True)
ANY = TensorInfo("object", (), None, dynamic=True)
STRINGS = TensorInfo("object", (2,), None)
CORPUS_LIMIT = 2000
_WATCHED = ("protocol/messages.py", "plan/serde.py", "plan/validation.py", "plan/execution.py", "runtime/")


class Reach:
    """Which lines of the code under test a call reached that no call before it did."""

    def __init__(self) -> None:
        self.lines: set[tuple[str, int]] = set()

    def of(self, call: Any, *arguments: Any) -> bool:
        """Calls; whether there was anything new. Lets through what the call raises."""
        before = len(self.lines)
        sys.settrace(self._enter)
        try:
            call(*arguments)
        except (ProtocolError, StrategyError):
            pass
        finally:
            sys.settrace(None)
        return len(self.lines) > before

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        file = frame.f_code.co_filename
        return self._line if any(part in file for part in _WATCHED) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line


def read_header(data: bytes) -> None:
    decode_header(data)


def read_plan(data: bytes) -> None:
    from_plain(ExecutionPlan, unpack(data)).validate()


def read_loose(data: bytes) -> None:
    array = from_payload(data, LOOSE, ALL)
    assert array.nbytes <= len(data)


def read_any(data: bytes) -> None:
    value = from_payload(data, ANY, ALL)
    assert value is None or isinstance(value, np.ndarray | list)


def read_strings(data: bytes) -> None:
    from_payload(data, STRINGS, ALL)


def loose_samples() -> list[bytes]:
    from distredge.runtime.engine import _with_shape

    arrays = [np.zeros(shape, "float32") for shape in ((2, 3), (0, 5), (1, 1))]
    values = [*arrays, arrays[:2], None, np.array(["a"], object)]
    return [bytes(to_payload(_with_shape(value))) for value in values]


def fuzz(
    headers: Iterable[bytes], plans: Iterable[bytes], *, seed: int, messages: int = 0, seconds: float = 0.0
) -> tuple[int, int]:
    """Feeds mutants to every decoder.

    Args:
        headers, plans: real ones to begin with.
        seed: of all mutants.
        messages, seconds: when to stop; whichever is given.

    Returns:
        How many were fed, and how many lines they reached.

    Raises:
        Exception: a decoder raised something else than what says that a message is wrong.
    """
    rng = random.Random(seed)
    mutator, reach = Mutator(rng), Reach()
    strings = [b"\x92\xa1a\xa1b", b"\x90"]
    corpora = [
        (read_header, list(headers)),
        (read_plan, list(plans)),
        (read_loose, loose_samples()),
        (read_any, loose_samples()),
        (read_strings, strings),
    ]
    for read, corpus in corpora:
        for data in corpus:
            reach.of(read, data)
    fed, end_s = 0, time.monotonic() + seconds
    while fed < messages or (seconds and time.monotonic() < end_s):
        # headers are what comes most; a plan takes a hundred times as long
        read, corpus = rng.choices(corpora, (60, 4, 10, 10, 16))[0]
        data = mutator.mutate(rng.choice(corpus))
        try:
            new = reach.of(read, data)
        except Exception as error:
            raise AssertionError(
                f"seed {seed}, message {fed}: {read.__name__}({data[:200]!r}): {error!r}"
            ) from error
        if new and len(corpus) < CORPUS_LIMIT:
            corpus.append(data)
        fed += 1
    return fed, len(reach.lines)
