"""The Open Inference Protocol's tensors: datatypes, nested lists, and raw bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

from distredge.errors import InputError
from distredge.runtime.engine import numpy_dtype

Array = np.ndarray[Any, np.dtype[Any]]

DATATYPES = {
    "BOOL": "bool",
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("U", "") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "BF16": "bfloat16",
    "BYTES": "object",
}
"""The protocol's names, and numpy's."""
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}


def datatype_of(dtype: str) -> str:
    """The protocol's name of a dtype; numpy's in capitals for one that the protocol lacks."""
    return _NAMES.get(dtype, dtype.upper())


def checked_shape(name: str, shape: Any) -> tuple[int, ...]:
    """Raises InputError unless these are sizes."""
    if not isinstance(shape, Iterable) or isinstance(shape, str | bytes):
        raise InputError(f"input {name!r} has no shape")
    sizes = tuple(shape)
    if any(type(size) is not int or size < 0 for size in sizes):
        raise InputError(f"input {name!r}: its shape holds something else than sizes")
    return sizes


def from_bytes(name: str, datatype: str, shape: tuple[int, ...], data: bytes | memoryview) -> Array:
    """An input from its raw bytes, little-endian; BYTES have four bytes of length before each element.

    Raises:
        InputError: the number of bytes is not that of the shape, or the datatype is unknown.
    """
    dtype = _dtype(name, datatype)
    if datatype == "BYTES":
        return _strings(name, shape, _split(name, data))
    if len(data) != dtype.itemsize * prod(shape):
        raise InputError(
            f"input {name!r}: {len(data)} bytes came, shape {list(shape)} of {datatype} has "
            f"{dtype.itemsize * prod(shape)}"
        )
    return np.frombuffer(data, dtype).reshape(shape)


def from_list(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Array:
    """An input from a list of numbers or strings, flat or nested.

    Raises:
        InputError: it holds something else, or another number of elements than the shape says.
    """
    dtype = _dtype(name, datatype)
    if not isinstance(data, list):
        raise InputError(f"input {name!r}: its data is no list")
    if datatype in ("FP16", "BF16"):
        raise InputError(f"input {name!r}: {datatype} has no form in JSON; send its bytes")
    flat = list(_flatten(name, data))
    if len(flat) != prod(shape):
        raise InputError(f"input {name!r}: {len(flat)} elements came, shape {list(shape)} has {prod(shape)}")
    if datatype == "BYTES":
        return _strings(name, shape, flat)
    allowed = bool if datatype == "BOOL" else (int,) if "INT" in datatype else (int, float)
    if any(
        not isinstance(item, allowed) or (isinstance(item, bool) and allowed is not bool) for item in flat
    ):
        raise InputError(f"input {name!r}: its data is not all of {datatype}")
    try:
        return np.array(flat, dtype).reshape(shape)
    except (OverflowError, ValueError):
        raise InputError(f"input {name!r}: a number is too large for {datatype}") from None


def to_bytes(array: Array) -> bytes:
    """An output's raw bytes, as `from_bytes` reads them."""
    if array.dtype.kind != "O":
        return array.tobytes()
    items = [str(item).encode() for item in array.ravel()]
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


def _dtype(name: str, datatype: Any) -> np.dtype[Any]:
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise InputError(
            f"input {name!r}: datatype {datatype!r} is unknown; there are {', '.join(DATATYPES)}"
        )
    return numpy_dtype(DATATYPES[datatype])


def _flatten(name: str, data: Any, depth: int = 0) -> Iterable[Any]:
    if depth > 16:
        raise InputError(f"input {name!r}: its data is nested too deeply")
    for item in data:
        if isinstance(item, list):
            yield from _flatten(name, item, depth + 1)
        else:
            yield item


def _split(name: str, data: bytes | memoryview) -> list[bytes]:
    items, at = [], 0
    while at < len(data):
        if at + 4 > len(data):
            raise InputError(f"input {name!r}: its bytes end within a length")
        (size,) = struct.unpack_from("<I", data, at)
        at += 4 + size
        if at > len(data):
            raise InputError(f"input {name!r}: its bytes end within an element")
        items.append(bytes(data[at - size : at]))
    return items


def _strings(name: str, shape: tuple[int, ...], items: list[Any]) -> Array:
    if len(items) != prod(shape):
        raise InputError(f"input {name!r}: {len(items)} elements came, shape {list(shape)} has {prod(shape)}")
    array = np.empty(len(items), object)
    for at, item in enumerate(items):
        try:
            array[at] = item.decode() if isinstance(item, bytes) else item
        except UnicodeDecodeError:
            raise InputError(f"input {name!r}: element {at} is no UTF-8 text") from None
        if not isinstance(array[at], str):
            raise InputError(f"input {name!r}: element {at} is no text")
    return array.reshape(shape)
