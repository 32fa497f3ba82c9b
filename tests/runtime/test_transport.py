"""Sockets and framing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgpack
import pytest
import zmq

from distredge.errors import DistrEdgeError, PortInUseError, ProtocolError
from distredge.protocol.messages import VERSION, Hello, Ping, RowsMessage, decode, encode
from distredge.runtime.link import Link
from distredge.runtime.transport import (
    MESSAGE_LIMIT,
    SMALL_BYTES,
    bind_router,
    connect_dealer,
    decode_header,
    is_loopback,
    is_readable,
    receive,
    rows_header,
    send,
    tcp_address,
)
from tests.runtime.conftest import wait_until

ROWS = RowsMessage(7, 1, 2, 3, "conv", 0, 8, -1, 1.5)


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as context:
        yield context
        context.destroy(linger=0)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp://127.0.0.1:9100", "tcp://127.0.0.1:9100"),
        ("127.0.0.1:0", "tcp://127.0.0.1:0"),
        ("tcp://127.0.0.1:*", "tcp://127.0.0.1:*"),
        (" box.local:1 ", "tcp://box.local:1"),
        ("[::1]:9100", "tcp://[::1]:9100"),
        ("*:9100", "tcp://*:9100"),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert tcp_address(text) == address


@pytest.mark.parametrize("text", ["", "9100", "tcp://a", "a:b", "a:99999", "ipc:///tmp/x", "a b:1", "::1:1"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(DistrEdgeError, match="is no address"):
        tcp_address(text)


def test_loopback() -> None:
    assert is_loopback("tcp://127.0.0.1:1")
    assert is_loopback("tcp://[::1]:1")
    assert not is_loopback("tcp://0.0.0.0:1")
    assert not is_loopback("tcp://10.0.0.1:1")


def test_a_port_in_use(context: zmq.Context[Any]) -> None:
    _, address = bind_router(context, "tcp://127.0.0.1:0")
    with pytest.raises(PortInUseError, match=address):
        bind_router(context, address)


def test_an_address_of_another_machine(context: zmq.Context[Any]) -> None:
    with pytest.raises(DistrEdgeError, match="cannot listen on"):
        bind_router(context, "tcp://203.0.113.1:9100")


def test_rows_headers_are_what_messages_say() -> None:
    fields = [7, 1, 2, 3, "conv", 0, 8, -1, 1.5]
    assert rows_header(*fields) == encode(ROWS)
    assert decode_header(encode(ROWS)) == [*fields, "raw"]
    assert rows_header(*fields, coding="int8") == encode(replace(ROWS, coding="int8"))
    assert decode(rows_header(*fields)) == ROWS
    assert decode_header(encode(Ping(1, 2))) == Ping(1, 2)


@pytest.mark.parametrize("at", range(10))
def test_rows_headers_with_a_wrong_field(at: int) -> None:
    fields: list[Any] = [7, 1, 2, 3, "conv", 0, 8, -1, 1.5, "raw"]
    for wrong in (None, True, [], b"x", "x" if at not in (4, 9) else 1):
        fields[at] = wrong
        with pytest.raises(ProtocolError):
            decode_header(msgpack.packb([VERSION, "rows", *fields]))
    with pytest.raises(ProtocolError):
        decode_header(msgpack.packb([VERSION, "rows", 7, 1, -2, 3, "conv", 0, 8, -1, 1.5, "raw"]))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\x00",
        b"\xc1\xc1",
        msgpack.packb([VERSION + 1, "ping", 1, 1]),
        msgpack.packb([VERSION, "nonsense"]),
        b"\xdd\xff\xff\xff\xff",
    ],
)
def test_what_is_no_header(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_header(header)


@pytest.mark.parametrize("size", [0, 1, SMALL_BYTES, SMALL_BYTES + 1, 1 << 20])
def test_messages_arrive_whole(context: zmq.Context[Any], size: int) -> None:
    router, address = bind_router(context, "tcp://127.0.0.1:0")
    dealer = connect_dealer(context, address)
    data = bytes(i % 251 for i in range(size))
    send(dealer, encode(ROWS), data)
    wait_until(lambda: is_readable(router))
    sender, message, payload = receive(router, routed=True)
    assert decode(rows_header(*message[:-1], coding=message[-1])) == ROWS
    assert payload is not None
    assert bytes(payload) == data
    send(router, encode(Hello(1, "a", "b")), to=sender)
    wait_until(lambda: is_readable(dealer))
    assert receive(dealer, routed=False) == (b"", Hello(1, "a", "b"), None)


def test_a_malformed_message_is_taken_off_whole(context: zmq.Context[Any]) -> None:
    router, address = bind_router(context, "tcp://127.0.0.1:0")
    dealer = connect_dealer(context, address)
    dealer.send_multipart([encode(Ping(1, 1)), b"payload", b"more", b"still more"])
    dealer.send_multipart([msgpack.packb([99, "hello", 1])])
    dealer.send_multipart([b"", encode(Ping(1, 1))])
    send(dealer, encode(Ping(1, 2)))
    errors = []
    for _ in range(3):
        wait_until(lambda: is_readable(router))
        with pytest.raises(ProtocolError) as caught:
            receive(router, routed=True)
        errors.append(caught.value.context["other_version"])
    assert errors == [False, True, False]
    wait_until(lambda: is_readable(router))
    assert receive(router, routed=True)[1] == Ping(1, 2)


def test_more_than_the_limit_is_never_taken_in(context: zmq.Context[Any]) -> None:
    router, address = bind_router(context, "tcp://127.0.0.1:0")
    assert router.get(zmq.MAXMSGSIZE) == MESSAGE_LIMIT
    router.set(zmq.MAXMSGSIZE, 1000)
    router.unbind(address)
    router.bind("tcp://127.0.0.1:0")
    link = Link(context, "a", router.get(zmq.LAST_ENDPOINT).rstrip(b"\0").decode())
    link.send(bytes(2000))
    wait_until(link.is_broken)
    assert not is_readable(router)
    link.close()


def test_a_link_notices_that_its_peer_has_gone(context: zmq.Context[Any]) -> None:
    router, address = bind_router(context, "tcp://127.0.0.1:0")
    link = Link(context, "a", address)
    link.send_message(Ping(1, 1))
    wait_until(lambda: is_readable(router))
    assert not link.is_broken()
    router.close(0)
    wait_until(link.is_broken)
    link.close()


def test_a_link_keeps_what_does_not_fit(context: zmq.Context[Any]) -> None:
    router, address = bind_router(context, "tcp://127.0.0.1:0")
    link = Link(context, "a", address)
    sent = 0
    while not link.is_waiting:
        link.send(encode(Ping(1, sent)), bytes(100_000))
        sent += 1
    received = 0
    while received < sent:
        link.flush()
        if is_readable(router):
            assert receive(router, routed=True)[1] == Ping(1, received)
            received += 1
    assert not link.is_waiting
    link.close()
