"""Dataclasses to plain values and back, and what is refused."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distredge.errors import ProtocolError
from distredge.graph.part import NodePart, PartSpec
from distredge.graph.rows import Crop, Edit, Rows, Taps
from distredge.plan.execution import ExecutionPlan
from distredge.plan.serde import from_plain, to_plain
from tests.protocol.plans import echo_plan, gather_plan, halo_plan, independent_plan


@dataclass(frozen=True)
class Inner:
    rows: Rows
    name: str | None


@dataclass(frozen=True)
class Outer:
    number: int
    share: float
    flag: bool
    inners: tuple[Inner, ...]
    pair: tuple[int, str]
    named: Mapping[str, Inner]
    anything: object = None


EXAMPLE = Outer(
    1,
    0.5,
    True,
    (Inner(Rows(0, 2), None), Inner(Rows(2, 3), "b")),
    (4, "p"),
    {"k": Inner(Rows(1, 1), "")},
    ((1, "a"), 2.5),
)


def test_round_trip() -> None:
    plain = to_plain(EXAMPLE)
    assert plain == [
        1, 0.5, True, [[[0, 2], None], [[2, 3], "b"]], [4, "p"], {"k": [[1, 1], ""]}, [[1, "a"], 2.5]
    ]  # fmt: skip
    for there_and_back in (
        lambda p: p,
        lambda p: json.loads(json.dumps(p)),
        lambda p: msgpack.unpackb(msgpack.packb(p)),
    ):
        back = from_plain(Outer, there_and_back(plain))
        assert back == EXAMPLE
        assert isinstance(back.inners[0].rows, Rows)
        assert hash(back.anything) == hash(EXAMPLE.anything)


@pytest.mark.parametrize("make", [halo_plan, gather_plan, independent_plan, echo_plan])
def test_plans(make: Any) -> None:
    plan = make()
    assert from_plain(ExecutionPlan, msgpack.unpackb(msgpack.packb(to_plain(plan)))) == plan
    assert from_plain(ExecutionPlan, json.loads(json.dumps(to_plain(plan)))) == plan


def test_parts_with_every_kind_of_edit() -> None:
    edit = Edit(
        attributes=(("pads", (1, 0, 1, 0)), ("auto_pad", None), ("scale", 0.1), ("mode", "linear")),
        constants=((1, "int64", ((1, 2), (3, 4))), (2, "float32", 0.1), (3, "int64", None)),
        taps=Taps(2, ((0, 1), (1, 1)), ((0.25, 1.0), (0.75, 0.0))),
        bypass=True,
        crop=Crop(2, 1, 0),
    )
    spec = PartSpec(
        (NodePart("n", "node", (None, Crop(2, 0, 3)), edit), NodePart("m", "combine", (), None)),
        ("x",),
        ("y",),
    )
    assert from_plain(PartSpec, json.loads(json.dumps(to_plain(spec)))) == spec
    assert repr(from_plain(PartSpec, json.loads(json.dumps(to_plain(spec))))) == repr(spec)


def damaged(at: int, value: Any) -> list[Any]:
    plain = to_plain(EXAMPLE)
    plain[at] = value
    return plain


@pytest.mark.parametrize(
    ("plain", "path"),
    [
        (None, "Outer"),
        ({}, "Outer"),
        ("abcdefg", "Outer"),
        ([], "Outer"),
        (to_plain(EXAMPLE)[:-1], "Outer"),
        ([*to_plain(EXAMPLE), 1], "Outer"),
        (damaged(0, "1"), "Outer.number"),
        (damaged(0, 1.0), "Outer.number"),
        (damaged(0, True), "Outer.number"),
        (damaged(0, None), "Outer.number"),
        (damaged(1, "0.5"), "Outer.share"),
        (damaged(1, True), "Outer.share"),
        (damaged(2, 1), "Outer.flag"),
        (damaged(3, {"a": 1}), "Outer.inners"),
        (damaged(3, [[[0, 2], None], [[0], None]]), r"Outer.inners\[1\].rows"),
        (damaged(3, [[[0, 2, 3], None]]), r"Outer.inners\[0\].rows"),
        (damaged(3, [[["0", 2], None]]), r"Outer.inners\[0\].rows.start"),
        (damaged(3, [[[0, 2], 5]]), r"Outer.inners\[0\].name"),
        (damaged(4, [4]), "Outer.pair"),
        (damaged(4, [4, "p", 5]), "Outer.pair"),
        (damaged(4, ["p", 4]), "Outer.pair"),
        (damaged(5, [1]), "Outer.named"),
        (damaged(5, {"k": [[1, 1]]}), "Outer.named.k"),
        (damaged(5, {1: [[1, 1], ""]}), "Outer.named"),
    ],
)
def test_refused_with_the_place(plain: Any, path: str) -> None:
    with pytest.raises(ProtocolError, match=f"^{path}: "):
        from_plain(Outer, plain)


def test_endless_nesting_is_refused() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    for plain in (deep, damaged(6, deep)):
        with pytest.raises(ProtocolError):
            from_plain(Outer, plain)
    shallow: Any = 1
    for _ in range(20):
        shallow = [shallow]
    assert from_plain(Outer, damaged(6, shallow))
    while isinstance(deep, list):  # taken apart from the outside: freeing it whole would recurse too
        deep = deep[0]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(ANYTHING)
def test_arbitrary_values(plain: Any) -> None:
    for kind in (Outer, Inner, ExecutionPlan, PartSpec):
        with contextlib.suppress(ProtocolError):
            from_plain(kind, plain)


def paths(plain: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a plain value."""
    inside = enumerate(plain) if isinstance(plain, list) else plain.items() if isinstance(plain, dict) else ()
    return [here, *(path for key, value in inside for path in paths(value, (*here, key)))]


def with_value(plain: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    if isinstance(plain, dict):
        return {k: with_value(v, path[1:], value) if k == path[0] else v for k, v in plain.items()}
    return [with_value(v, path[1:], value) if i == path[0] else v for i, v in enumerate(plain)]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_plans(data: st.DataObject) -> None:
    """One value of a plan replaced by anything: the same shape, or refused."""
    plain = to_plain(halo_plan())
    path = data.draw(st.sampled_from(paths(plain)))
    plain = with_value(plain, path, data.draw(ANYTHING))
    try:
        plan = from_plain(ExecutionPlan, plain)
    except ProtocolError:
        return
    assert isinstance(plan, ExecutionPlan)
    assert replace(plan) == plan or "nan" in repr(plan)
