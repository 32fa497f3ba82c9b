"""What it costs this machine to round rows for the wire, and to restore them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np

from distredge.plan.execution import TensorInfo
from distredge.plan.wire import ROUNDED
from distredge.runtime.coding import decode_rows, encode_rows

INFO = TensorInfo("float32", (1, 64, 64, 64), 2)
"""A megabyte, as rows of a map come."""
TIMES = 9


def measure_coding(seconds_of: Callable[[Callable[[], object]], float]) -> dict[str, tuple[float, float]]:
    """Seconds per byte in memory to round and to restore, by coding; medians.

    Args:
        seconds_of: runs something, and says how long it took.
    """
    array = np.maximum(np.random.default_rng(0).standard_normal(INFO.shape), 0).astype(np.float32)
    found = {}
    for coding in ROUNDED:
        coded = encode_rows(array, coding, INFO)
        assert coded is not None
        there = [seconds_of(partial(encode_rows, array, coding, INFO)) for _ in range(TIMES)]
        back = [seconds_of(partial(decode_rows, coded, INFO, INFO.all_rows)) for _ in range(TIMES)]
        found[coding] = median(there) / array.nbytes, median(back) / array.nbytes
    return found
