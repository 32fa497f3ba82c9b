"""numba where it is installed; without it the same functions run as plain Python, a thousand times slower."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

try:
    import numba
    import numba.core.event as events

    AVAILABLE = True
except ImportError:
    AVAILABLE = False


def compiled(function: F) -> F:
    """Compiles at the first call: seconds, once per machine, since the result is kept on disk."""
    return _compile(function)


def internal(function: F) -> F:
    """As `compiled`, for a function that is called from compiled ones only."""
    return _compile(function)


def inlined(function: F) -> F:
    """As `compiled`, and made a part of its callers: passing dozens of arrays on costs more than the work."""
    return _compile(function, forceinline=True)


def _compile(function: F, **options: bool) -> F:
    if not AVAILABLE:
        return function
    config: Any = numba.config
    njit: Any = numba.njit
    before = config.CACHE_DIR
    config.CACHE_DIR = before or _cache_folder(Path(function.__code__.co_filename).parent)
    try:
        # Nothing here allocates, and without _nrt no array's reference count is touched in inner loops.
        # Nothing is ever "not a number", so minima and maxima are single instructions.
        always = {"nogil": True, "error_model": "numpy", "_nrt": False, "fastmath": {"nnan", "nsz"}}
        jit = njit(cache=True, **always, **options)
        return cast(F, jit(function))
    finally:
        config.CACHE_DIR = before


if AVAILABLE:
    _events: Any = events

    class _Notice(events.Listener):
        """Tells somebody who looks on why the first plan takes longer."""

        def on_start(self, event: object) -> None:
            _events.unregister("numba:compile", self)
            if sys.stderr.isatty():
                logging.getLogger("distredge").warning("compiling the planner, once: most of a minute")

        def on_end(self, event: object) -> None:
            pass

    _events.register("numba:compile", _Notice())


@cache
def _cache_folder(package: Path) -> str:
    """One folder per version of the evaluator and of the package that calls it: numba itself does not see
    when a called function changes."""
    digest = hashlib.sha256()
    for path in sorted({*Path(__file__).parent.glob("*.py"), *package.glob("*.py")}):
        digest.update(path.read_bytes())
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return str(Path(root) / "distredge" / f"compiled-{digest.hexdigest()[:12]}")
