"""Arrays of records: what belongs together lies together, and numba has few arguments to compile."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Records = Any
"""A numpy.recarray; its fields are named where it is made."""


def records(shape: int | tuple[int, ...], ints: str, floats: str = "") -> Records:
    """Zeros with these 8-byte fields, names separated by blanks."""
    fields = [(name, np.int64) for name in ints.split()] + [(name, np.float64) for name in floats.split()]
    return np.zeros(shape, dtype=fields).view(np.recarray)


def filled(ints: dict[str, Any], floats: dict[str, Any] | None = None) -> Records:
    """Records out of one column per field."""
    floats = floats or {}
    columns = {**ints, **floats}
    found = records(max(map(len, columns.values())), " ".join(ints), " ".join(floats))
    for name, column in columns.items():
        found[name][: len(column)] = column
    return found
