"""As for the runtime's tests: nothing may be left behind."""

from tests.runtime.conftest import _started_once, cache, nothing_left_behind

__all__ = ["_started_once", "cache", "nothing_left_behind"]
