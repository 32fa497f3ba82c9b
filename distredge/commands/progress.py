"""One line on a terminal that tells how far a command is; nothing where nobody reads it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY_S = 0.1
"""No line more often than so, lest the telling slows what it tells of."""


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Gives a function to call with what is being done, how much of it is done, and how much there is.

    The line is taken away at the end. There is none where stderr is no terminal.

    Args:
        quiet: show nothing, as with --json.
    """
    show = sys.stderr.isatty() and not quiet
    shown, next_s = "", 0.0

    def tell(what: str, done: int, of: int) -> None:
        nonlocal shown, next_s
        now = time.monotonic()
        if show and now >= next_s:
            next_s = now + EVERY_S
            before, shown = len(shown), f"{what}: {done} of {of}"
            print(f"\r{shown:<{before}}", end="", file=sys.stderr, flush=True)

    try:
        yield tell
    finally:
        if shown:
            print(f"\r{'':<{len(shown)}}\r", end="", file=sys.stderr, flush=True)
