"""One change at a time of a testbed, and none while anything that a killed one started is on its way.

The lock is an abstract socket: it leaves no file, and it is free when the last descriptor of it is closed.
Who makes a testbed lets its programs inherit it: `ip` and its like (system.py) hold it until they end,
programs that are to stay (enter.py) until they are in their CPU group. So whoever gets the lock sees all that
was made, and finds every process by its group.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

from distredge.errors import TestbedError


@contextlib.contextmanager
def changing(testbed: str, patience_s: float = 5.0) -> Iterator[int]:
    """Holds the lock inside the block; yields its descriptor.

    Args:
        testbed: its name.
        patience_s: how long the orphans of a killed holder may take to end.

    Raises:
        TestbedError: another process holds it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        lock.set_inheritable(True)
        deadline = time.monotonic() + patience_s
        while True:
            try:
                lock.bind(f"\0distredge-testbed-{testbed}")
                break
            except OSError:
                if time.monotonic() > deadline:
                    message = f"testbed {testbed} is being changed by another process; wait for it"
                    raise TestbedError(message, name=testbed) from None
                time.sleep(0.01)
        yield lock.fileno()
