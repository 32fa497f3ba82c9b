"""How rows are coded on their way: losslessly, as half floats, or as bytes with a scale.

What payloads are, by the names of `distredge.plan.wire`: RAW, the rows as they lie in memory; LOSSLESS, one
zstd frame of that; FP16, half floats; INT8, for each group of numbers its lowest value and step as two
float32, then a byte for each number. What must not be rounded away (infinities, NaNs, what a half float
cannot hold) travels RAW.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
import zstandard

from distredge.errors import ProtocolError
from distredge.graph.rows import Rows
from distredge.plan.execution import TensorInfo, Transfer
from distredge.plan.wire import FP16, GROUP_BYTES, LOSSLESS, RAW, group_count
from distredge.protocol.messages import Buffer

Array = np.ndarray[Any, np.dtype[Any]]
LEVEL = 1
"""Of zstd. Among what was measured (docs/wire.md) it moves most rows soonest at 20 to 200 Mbit/s."""
STEPS = 255


class Coded(NamedTuple):
    """Rows as they travel: the payload, and how it came about."""

    coding: str
    payload: Buffer


def encode_rows(array: Array, coding: str, info: TensorInfo) -> Coded | None:
    """Rows of a tensor, coded; None where that is not possible or not shorter, so that they travel RAW.

    Args:
        array: C-contiguous floats.
        coding: any but RAW.
        info: of the tensor.
    """
    if coding == LOSSLESS:
        packed = zstandard.ZstdCompressor(level=LEVEL).compress(array.reshape(-1).view(np.uint8).data)
        return Coded(LOSSLESS, packed) if len(packed) < array.nbytes else None
    with np.errstate(over="ignore", invalid="ignore"):
        payload = _to_halves(array) if coding == FP16 else _to_steps(array, group_count(info))
    return None if payload is None else Coded(coding, payload)


def _to_halves(array: Array) -> Buffer | None:
    halves = array.astype(np.float16)
    return halves.reshape(-1).view(np.uint8).data if np.isfinite(halves).all() else None


def _to_steps(array: Array, groups: int) -> Buffer | None:
    values = array.reshape(groups, -1).astype(np.float32, copy=False)
    scales = np.empty((groups, 2), np.float32)
    low, step = scales[:, :1], scales[:, 1:]
    np.min(values, axis=1, keepdims=True, out=low)
    np.subtract(values.max(axis=1, keepdims=True), low, out=step)
    if not (np.isfinite(step).all() and np.isfinite(low).all()):
        return None
    step /= STEPS
    step[step < np.finfo(np.float32).tiny] = 1.0  # all the same, as far as steps can tell
    payload = np.empty(scales.nbytes + values.size, np.uint8)
    payload[: scales.nbytes] = scales.reshape(-1).view(np.uint8)
    steps = (values - low) / step
    np.rint(steps, out=steps)
    payload[scales.nbytes :] = steps.reshape(-1)
    return payload.data


def check_rows(coded: Coded, transfer: Transfer, info: TensorInfo) -> None:
    """Refuses a payload that cannot be the rows of a transfer, before memory is taken for what it unpacks to.

    Raises:
        ProtocolError: it cannot.
    """
    coding, payload = coded
    if coding not in (RAW, transfer.coding):
        raise ProtocolError(f"rows came coded as {coding[:20]!r}, which is not what the plan says")
    if coding == RAW:
        return  # held against the rows' size where the array is made
    size, shape = memoryview(payload).nbytes, info.part_shape(transfer.rows)
    if coding == LOSSLESS:
        whole = prod(shape) * np.dtype(info.dtype).itemsize
        if size >= whole or _unpacked_size(payload) != whole:
            raise ProtocolError("rows came packed that would not unpack to their size")
        return
    wanted = 2 * prod(shape) if coding == FP16 else prod(shape) + GROUP_BYTES * group_count(info)
    if size != wanted:
        raise ProtocolError(f"rows of shape {shape} coded as {coding} do not have {size} bytes")


def _unpacked_size(payload: Buffer) -> int:
    """What a zstd frame says that it unpacks to; -1 if it says nothing, or is none."""
    try:
        return int(zstandard.frame_content_size(bytes(memoryview(payload)[:18])))
    except zstandard.ZstdError:
        return -1


def decode_rows(coded: Coded, info: TensorInfo, rows: Rows) -> Array:
    """The rows of a payload that `check_rows` has let pass, and that is not RAW.

    Raises:
        ProtocolError: it is damaged.
    """
    coding, payload = coded
    shape, dtype = info.part_shape(rows), np.dtype(info.dtype)
    if coding == LOSSLESS:
        try:
            data = zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
        except zstandard.ZstdError:
            data = b""
        if len(data) != prod(shape) * dtype.itemsize:
            raise ProtocolError("packed rows are damaged")
        return np.frombuffer(data, dtype).reshape(shape)
    if coding == FP16:
        return np.frombuffer(payload, np.float16).reshape(shape).astype(dtype)
    groups = group_count(info)
    scales = np.frombuffer(payload, np.float32, 2 * groups).reshape(groups, 2)
    values = np.frombuffer(payload, np.uint8, offset=scales.nbytes).reshape(groups, -1)
    restored = values * scales[:, 1:]
    restored += scales[:, :1]
    return restored.reshape(shape).astype(dtype, copy=False)
