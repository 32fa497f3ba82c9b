"""What a caller feeds, held against what the model declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distredge.errors import InputError
from distredge.graph.importer import InputInfo, Model
from distredge.graph.simplify import is_symbol
from distredge.graph.sourceless import START
from distredge.runtime.engine import Array, numpy_dtype

_TYPE_NAMES = {"float32": "float", "float64": "double", "object": "string"}

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""The shape of each input that is a tensor, in the model's order."""


@dataclass(frozen=True, slots=True)
class NodeArg:
    """An input or output, with the attributes that onnxruntime's has.

    Attributes:
        type: such as `tensor(float)`.
        shape: numbers, names of symbolic dimensions, None for unknown ones.
    """

    name: str
    type: str
    shape: list[int | str | None]

    @classmethod
    def of(cls, info: InputInfo) -> NodeArg:
        """In onnxruntime's words for types."""
        element = _TYPE_NAMES.get(info.dtype, info.dtype)
        return cls(info.name, info.kind or f"tensor({element})", list(info.shape))


def check_feed(infos: Sequence[InputInfo], feed: Any) -> dict[str, Array]:
    """The feed as arrays, in the model's order.

    Args:
        infos: the model's inputs.
        feed: arrays, or lists of numbers, by name; one array alone for a model with one input.

    Raises:
        InputError: a name, a shape or a dtype is wrong; one clear line.
    """
    if not isinstance(feed, Mapping):
        if len(infos) != 1:
            names = ", ".join(info.name for info in infos)
            raise InputError(f"the model has {len(infos)} inputs; give a dict with {names}")
        feed = {infos[0].name: feed}
    if not infos:  # a random feed is drawn for the graph, whose one input is fed below
        feed = {name: value for name, value in feed.items() if name != START}
    known = {info.name for info in infos}
    for name in feed:
        if name not in known:
            raise InputError(
                f"the model has no input {name!r}; its inputs are {', '.join(sorted(known))}", input=name
            )
    arrays: dict[str, Array] = {}
    symbols: dict[str, int] = {}
    for info in infos:
        if info.name not in feed:
            raise InputError(f"input {info.name!r} is missing", input=info.name)
        if info.kind:
            arrays[info.name] = _plain(feed[info.name])
            continue
        array = _as_array(info, feed[info.name])
        _check_dtype(info, array)
        if array.dtype.kind == "U":
            array = array.astype(object)
        _check_shape(info, array, symbols)
        arrays[info.name] = np.ascontiguousarray(array) if array.ndim else array
    return arrays if infos else {START: np.zeros((), np.int64)}


def _plain(value: Any) -> Any:
    """A sequence as a list of arrays; an optional as what is in it, or None."""
    if isinstance(value, list | tuple):
        return [np.ascontiguousarray(item) if np.ndim(item) else np.asarray(item) for item in value]
    return value if value is None else np.asarray(value)


def _as_array(info: InputInfo, value: Any) -> Array:
    """A list has no dtype of its own, so that it takes the input's."""
    wanted = numpy_dtype(info.dtype)
    if not isinstance(value, list | tuple):
        return np.asarray(value)
    try:
        return np.asarray(value, dtype=None if wanted.kind == "O" else wanted)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"input {info.name!r} is a list that makes no array of {info.dtype}: {error}; give an array",
            input=info.name,
        ) from None


def _check_dtype(info: InputInfo, array: Array) -> None:
    wanted = numpy_dtype(info.dtype)
    if array.dtype == wanted or (wanted.kind == "O" and array.dtype.kind == "U"):
        return
    raise InputError(
        f"input {info.name!r} has dtype {array.dtype}, the model takes {info.dtype}; "
        f"convert it with .astype({info.dtype!r})",
        input=info.name,
    )


def _check_shape(info: InputInfo, array: Array, symbols: dict[str, int]) -> None:
    fits = len(info.shape) == array.ndim
    if fits:
        for dim, size in zip(info.shape, array.shape, strict=True):
            known = symbols.setdefault(dim, size) if is_symbol(dim) else dim
            fits = fits and (known == size or not isinstance(known, int))
    if not fits:
        wanted = "x".join("?" if dim is None else str(dim) for dim in info.shape) or "a scalar"
        raise InputError(
            f"input {info.name!r} has shape {shape_text(array.shape)}, the model takes {wanted}",
            input=info.name,
        )


def shape_text(shape: Sequence[int]) -> str:
    """As it is written on the command line."""
    return "x".join(map(str, shape)) or "a scalar"


def shapes_of(feed: Mapping[str, Array]) -> Shapes:
    """What a plan is compiled for. Sequences have no shape: they are never split."""
    return tuple(
        (name, array.shape) for name, array in feed.items() if isinstance(array, np.ndarray) and name != START
    )


def shapes_of_model(model: Model) -> Shapes:
    """The shapes that an imported model is for, as `shapes_of` a feed."""
    tensors = model.graph.tensors
    return tuple((info.name, tensors[info.name].shape) for info in model.input_infos if not info.kind)
