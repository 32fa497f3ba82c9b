"""One line on a terminal that tells how far a command is; nothing where nobody reads it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(title: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Gives a function that is called with what is done and how much there is in all.

    Args:
        title: what is being done.
        quiet: show nothing, as with --json.
    """
    show = sys.stderr.isatty() and not quiet
    shown = ""

    def tell(done: int, of: int) -> None:
        nonlocal shown
        if show:
            before, shown = len(shown), f"{title}: {done} of {of}"
            print(f"\r{shown:<{before}}", end="", file=sys.stderr, flush=True)

    try:
        yield tell
    finally:
        if shown:
            print(f"\r{'':<{len(shown)}}\r", end="", file=sys.stderr, flush=True)
