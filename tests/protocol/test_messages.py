"""Headers: every kind there and back, and nothing but ProtocolError for everything else."""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distredge.errors import ProtocolError
from distredge.protocol import messages
from distredge.protocol.messages import (
    VERSION,
    Bye,
    Message,
    Ping,
    Pong,
    RowsMessage,
    UsePlan,
    decode,
    encode,
    unpack,
)

KINDS: tuple[type[Message], ...] = Message.__args__  # type: ignore[attr-defined]

VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**64 - 1),
    str: st.text(max_size=30),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    tuple[str, ...]: st.lists(st.text(max_size=30), max_size=5).map(tuple),
}
WRONG: dict[Any, list[Any]] = {
    int: ["1", 1.0, None, True, [1], {}],
    str: [1, b"bytes", None, ["a"], True],
    float: ["1.0", None, True, [1.0]],
    bool: [0, "true", None],
    tuple[str, ...]: ["abc", None, [1], [None], {"a": "b"}, 3],
}


def field_types(kind: type[Message]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def messages_of(kind: type[Message]) -> st.SearchStrategy[Message]:
    return st.builds(kind, **{name: VALUES[hint] for name, hint in field_types(kind).items()})


def packed(*values: Any) -> bytes:
    return bytes(msgpack.packb(list(values)))


def an_example(kind: type[Message]) -> Message:
    example = {int: 7, str: "name", float: 0.5, bool: True, tuple[str, ...]: ("a", "b")}
    return kind(**{name: example[hint] for name, hint in field_types(kind).items()})


def test_kinds_are_distinct() -> None:
    assert len({kind.kind for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_round_trip(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(messages_of(kind))
    header = encode(message)
    for buffer in (header, bytearray(header), memoryview(header)):
        back = decode(buffer)
        assert back == message
        assert type(back) is kind


def test_the_header_is_a_flat_list() -> None:
    """The wire format, written down: other versions have to know when it changes."""
    message = RowsMessage(1, 2, 3, 4, "t", 5, 6, 7, 0.5)
    assert msgpack.unpackb(encode(message)) == [VERSION, "rows", 1, 2, 3, 4, "t", 5, 6, 7, 0.5, "raw"]
    assert len(encode(message)) < 200


def test_whole_numbers_pass_for_floats() -> None:
    assert decode(packed(VERSION, "pong", 1, 2, 3)) == Pong(1, 2, 3.0)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_wrong_types_of_fields(kind: type[Message]) -> None:
    plain = msgpack.unpackb(encode(an_example(kind)))
    for at, hint in enumerate(field_types(kind).values(), start=2):
        for wrong in WRONG[hint]:
            with pytest.raises(ProtocolError):
                decode(packed(*plain[:at], wrong, *plain[at + 1 :]))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_wrong_numbers_of_fields(kind: type[Message]) -> None:
    plain = msgpack.unpackb(encode(an_example(kind)))
    with pytest.raises(ProtocolError, match="fields"):
        decode(packed(*plain[:-1]))
    with pytest.raises(ProtocolError, match="fields"):
        decode(packed(*plain, 0))


@pytest.mark.parametrize("version", [0, VERSION + 1, -1, "1", None, 1.0, True, [1], 2**64 - 1])
def test_wrong_versions(version: object) -> None:
    with pytest.raises(ProtocolError, match="version"):
        decode(packed(version, "bye", 1))


@pytest.mark.parametrize("kind", ["", "BYE", "bye ", "no such kind", "x" * 10_000, 1, None, ["bye"], b"bye"])
def test_unknown_kinds(kind: object) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(packed(VERSION, kind, 1))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\x00",
        packed(),
        packed(VERSION),
        msgpack.packb({"version": VERSION, "kind": "bye"}),
        msgpack.packb("bye"),
        msgpack.packb(None),
        packed(VERSION, "bye", 1) + b"\x00",  # something behind it
        packed(VERSION, "bye", 1)[:-1],  # cut off
        b"\xdd\xff\xff\xff\xff",  # a list of four thousand million, of which nothing comes
        b"\xdb\xff\xff\xff\xffabc",  # a text of 4 GiB, likewise
        b"\xc6\xff\xff\xff\xff",  # bytes, likewise
        b"\xdf\xff\xff\xff\xff",  # a map, likewise
        b"\x91" * 5000 + b"\xc0",  # lists in lists
        packed(VERSION, "bye", msgpack.ExtType(5, b"x")),
        b"\x93\x01\xa3bye\xd6\xff\x00\x00\x00\x00",  # a time stamp
        b"\x92\x01\xa3\xff\xfe\xfd",  # not UTF-8
        b"\xc1",  # never used in msgpack
        b"\x81\x90\x01",  # a list as the key of a map
    ],
)
def test_not_a_header(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(header)


def test_oversize_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "HEADER_LIMIT", 100)
    assert decode(encode(Bye(1))) == Bye(1)
    monkeypatch.setattr(messages, "unpack", lambda header: pytest.fail("it was read"))
    with pytest.raises(ProtocolError, match="limit"):
        decode(b"\x00" * 101)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes(data: bytes) -> None:
    for read in (decode, unpack):
        with contextlib.suppress(ProtocolError):
            read(data)


PLAIN = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=5),
        st.binary(max_size=5),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([VERSION, PLAIN]),
    st.sampled_from([kind.kind for kind in KINDS]),
    st.lists(PLAIN, max_size=10),
)
def test_arbitrary_fields(version: Any, kind: str, values: list[Any]) -> None:
    """Well-formed msgpack of the right kind: decoded to just what was sent, or refused."""
    try:
        message = decode(packed(VERSION, kind, *values))
    except ProtocolError:
        return
    assert msgpack.unpackb(encode(message)) == [VERSION, kind, *values]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_flipped_bytes(data: st.DataObject) -> None:
    """One damaged byte gives another message or a refusal, never another error."""
    kind = data.draw(st.sampled_from(KINDS))
    header = bytearray(encode(an_example(kind)))
    header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = decode(header)
    except ProtocolError:
        return
    assert decode(encode(message)) == message or message != message


def test_examples_of_what_users_see() -> None:
    with pytest.raises(ProtocolError, match="protocol version 1 was received, this is version 2"):
        decode(packed(1, "ping", 1, 2))
    with pytest.raises(ProtocolError, match=r"Ping\.number: int was expected, not str"):
        decode(packed(VERSION, "ping", 1, "2"))
    assert decode(packed(VERSION, "ping", 1, 2)) == Ping(1, 2)
    assert decode(packed(VERSION, "use_plan", 1, 2, 3, ["a", "b"], ["", ""])) == UsePlan(
        1, 2, 3, ("a", "b"), ("", "")
    )
