"""Arrays of types that numpy lacks (bfloat16, 8-bit floats, 4-bit integers), in and out of onnxruntime.

`InferenceSession.run` refuses such arrays, which numpy knows through ml_dtypes. They go as `OrtValue`s.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]

_LACKING = ("bfloat16", "float8", "float4", "int4", "int2")


def is_foreign(session: ort.InferenceSession) -> bool:
    """Whether an input or output is of a type that numpy lacks."""
    infos = (*session.get_inputs(), *session.get_outputs())
    return any(lacking in info.type for info in infos for lacking in _LACKING)


def run_foreign(session: ort.InferenceSession, names: Sequence[str], feed: Mapping[str, Any]) -> list[Array]:
    """`session.run` for a session that `is_foreign`."""
    values = {name: _to_value(array) for name, array in feed.items()}
    return [_to_array(value) for value in session.run_with_ort_values(list(names), values)]


def _to_value(array: Array) -> ort.OrtValue:
    if array.dtype.isbuiltin == 1:
        return ort.OrtValue.ortvalue_from_numpy(array)
    packed = numpy_helper.from_array(array).raw_data  # types below a byte lie two or four in one
    element = helper.np_dtype_to_tensor_dtype(array.dtype)
    value = ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), element)
    ctypes.memmove(value.data_ptr(), packed, len(packed))
    return value


def _to_array(value: ort.OrtValue) -> Array:
    element = value.element_type()
    if helper.tensor_dtype_to_np_dtype(element).isbuiltin == 1:
        return value.numpy()  # type: ignore[no-any-return]
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    tensor = TensorProto(data_type=element, dims=value.shape(), raw_data=raw)
    return np.array(numpy_helper.to_array(tensor))
