"""Dataclasses to plain lists and back, checked against their type hints. For plan files and for the wire."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from distredge.errors import ProtocolError

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Lists, dicts and scalars only. A dataclass becomes the list of its fields' values."""
    if is_dataclass(value) and not isinstance(value, type):
        return [to_plain(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return value


def from_plain(kind: type[T], plain: Any) -> T:
    """Rebuilds what `to_plain` flattened.

    Raises:
        ProtocolError: the plain value does not have the type's shape.
    """
    try:
        return typing.cast(T, _build(kind, plain, kind.__name__))
    except RecursionError:
        raise ProtocolError(f"{kind.__name__}: lists nested too deeply") from None


@cache
def _field_types(kind: type) -> tuple[tuple[str, Any], ...]:
    hints = typing.get_type_hints(kind)
    if is_dataclass(kind):
        return tuple((field.name, hints[field.name]) for field in fields(kind))
    return tuple((name, hints[name]) for name in kind._fields)  # type: ignore[attr-defined]


def _build(kind: Any, plain: Any, path: str) -> Any:
    if kind is object:
        return _frozen(plain)
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        return None if plain is None else _build(options[0], plain, path)
    if origin is tuple:
        return _build_tuple(typing.get_args(kind), _list(plain, path), path)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(plain, dict):
            raise ProtocolError(f"{path}: a map was expected, not {type(plain).__name__}")
        item = typing.get_args(kind)[1]
        return {_build(str, key, path): _build(item, value, f"{path}.{key}") for key, value in plain.items()}
    if is_dataclass(kind) or (isinstance(kind, type) and issubclass(kind, tuple)):
        members = _field_types(typing.cast(type, kind))
        values = _list(plain, path)
        if len(values) != len(members):
            raise ProtocolError(f"{path}: {len(members)} fields were expected, not {len(values)}")
        built = (
            _build(hint, value, f"{path}.{name}") for (name, hint), value in zip(members, values, strict=True)
        )
        return typing.cast(Any, kind)(*built)
    if kind is float and isinstance(plain, int) and not isinstance(plain, bool):
        return float(plain)
    if not isinstance(plain, kind) or (kind is int and isinstance(plain, bool)):
        raise ProtocolError(f"{path}: {kind.__name__} was expected, not {type(plain).__name__}")
    return plain


def _build_tuple(arguments: tuple[Any, ...], values: list[Any], path: str) -> tuple[Any, ...]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_build(arguments[0], value, f"{path}[{at}]") for at, value in enumerate(values))
    if len(arguments) != len(values):
        raise ProtocolError(f"{path}: {len(arguments)} items were expected, not {len(values)}")
    return tuple(_build(kind, value, path) for kind, value in zip(arguments, values, strict=True))


def _list(plain: Any, path: str) -> list[Any]:
    if not isinstance(plain, list | tuple):
        raise ProtocolError(f"{path}: a list was expected, not {type(plain).__name__}")
    return list(plain)


def _frozen(plain: Any) -> Any:
    return tuple(_frozen(item) for item in plain) if isinstance(plain, list | tuple) else plain
