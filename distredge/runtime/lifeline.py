"""A process that never outlives the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress

_PR_SET_PDEATHSIG = 1


class Lifeline:
    """Ties this process to its parent.

    Three ways, since each alone has a hole. The kernel kills this process when the *thread* that started
    it ends, even if this process hangs or is stopped; that thread must therefore live as long as the
    process is wanted. A process whose parent died has another parent: that also covers a parent that died
    before the kernel was asked. And a pipe from the parent, which the peer watches, ends with it at once.

    Args:
        parent: process id of who started this one.
    """

    def __init__(self, parent: int) -> None:
        self._parent = parent
        # Elsewhere than on Linux the other two ways remain.
        with suppress(AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def is_cut(self) -> bool:
        """Whether the parent is gone."""
        return os.getppid() != self._parent
