"""ZeroMQ sockets with one set of limits, and messages going in and out of them.

Each peer binds one ROUTER. Requesters and other peers connect DEALERs to it. A message is the header of
`distredge.protocol.messages` and at most one payload; payloads are never copied on the way.
"""

from __future__ import annotations

import re
from typing import Any, Protocol, cast

import msgpack
import zmq

from distredge.errors import DistrEdgeError, KeysError, PortInUseError, ProtocolError
from distredge.plan.wire import RAW
from distredge.protocol.messages import (
    HEADER_LIMIT,
    VERSION,
    Buffer,
    Message,
    RowsMessage,
    decode,
    encode,
    unpack,
)
from distredge.runtime.keys import KeyPair

MESSAGE_LIMIT = 1 << 30
"""Bytes of the largest payload. ZeroMQ drops the connection before it takes memory for more."""

SILENCE_MS = 10_000
"""A connection on which nothing comes for so long is cut by ZeroMQ's own threads, whatever Python does. A
heartbeat queues behind what is being sent, which on a slow link may take seconds."""
WATCH_SILENCE_MS = 1000
"""The same, for connections on which nothing but signs of life move."""

HANDSHAKE_MS = 5000
"""A connection that is not made in so long is cut: until then, strangers cost memory."""

QUEUE_LIMIT = 256
"""Messages queued on one connection; more wait with the sender."""

SMALL_BYTES = 16 * 1024
"""Payloads up to this are copied: that is cheaper than sharing, and ZeroMQ does not align small ones."""

RowsFields = list[Any]
"""The fields of a RowsMessage in its order; making the dataclass for each message would cost the most."""

Incoming = tuple[bytes, RowsFields | Message, Buffer | None]
"""Who sent it (empty on a DEALER), what, and the payload."""

_ROWS = RowsMessage.kind
_POLLIN = int(zmq.POLLIN)  # as enums, flags cost microseconds
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.SNDMORE | zmq.NOBLOCK)
_ADDRESS = re.compile(r"(tcp://)?(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5}|\*)")


def tcp_address(text: str) -> str:
    """`host:port` or `tcp://host:port`, in ZeroMQ's form.

    Raises:
        DistrEdgeError: it is neither.
    """
    match = _ADDRESS.fullmatch(text.strip())
    if match is None or (match["port"] != "*" and int(match["port"]) > 65535):
        raise DistrEdgeError(f"{text!r} is no address; write tcp://127.0.0.1:9100", address=text)
    return f"tcp://{match['host']}:{match['port']}"


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address in ZeroMQ's form."""
    host = address.removeprefix("tcp://").rpartition(":")[0]
    return host in ("localhost", "[::1]") or host.startswith("127.")


class Protection(Protocol):
    """Whoever makes a peer's socket take encrypted connections only."""

    def protect(self, socket: zmq.Socket[bytes]) -> None:
        """To be called before the socket is bound."""
        ...


def bind_router(
    context: zmq.Context[Any], address: str, guard: Protection | None = None
) -> tuple[zmq.Socket[bytes], str]:
    """A peer's socket, and the address that it really has (port 0 and `*` become a number).

    With a guard, the socket talks to nobody but those whom that lets in.

    Raises:
        PortInUseError: the port is taken.
        DistrEdgeError: the address is not this machine's.
    """
    socket = _socket(context, zmq.ROUTER, address)
    # Without this, a message for a requester that has gone would vanish silently.
    socket.set(zmq.ROUTER_MANDATORY, 1)
    if guard is not None:
        guard.protect(socket)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close(0)
        if error.errno == zmq.EADDRINUSE:
            raise PortInUseError(
                f"{address} is in use; stop what listens there, or choose another port", address=address
            ) from None
        raise DistrEdgeError(f"cannot listen on {address}: {error.strerror}", address=address) from None
    return socket, cast(bytes, socket.get(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()


def connect_dealer(
    context: zmq.Context[Any],
    address: str,
    own: KeyPair | None = None,
    peer_key: str = "",
    silence_ms: int = SILENCE_MS,
) -> zmq.Socket[bytes]:
    """A connection to a peer's socket. It is made in the background.

    Args:
        context: of the socket.
        address: where the peer listens.
        own: our keys; needed with a peer's key.
        peer_key: whose secret half the peer must hold; empty for a plain connection.
        silence_ms: how long nothing may come before it counts as lost.
    """
    socket = _socket(context, zmq.DEALER, address, silence_ms)
    if peer_key:
        if own is None:
            socket.close(0)
            raise KeysError(f"{address} is to be spoken to encrypted, and this process has no key of its own")
        socket.set(zmq.CURVE_SERVERKEY, peer_key.encode())
        socket.set(zmq.CURVE_PUBLICKEY, own.public.encode())
        socket.set(zmq.CURVE_SECRETKEY, own.secret.encode())
    try:
        socket.connect(address)
    except zmq.ZMQError as error:
        socket.close(0)
        raise DistrEdgeError(f"cannot connect to {address}: {error.strerror}", address=address) from None
    return socket


def _socket(
    context: zmq.Context[Any], kind: int, address: str, silence_ms: int = SILENCE_MS
) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = context.socket(kind)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.MAXMSGSIZE, MESSAGE_LIMIT)
    socket.set(zmq.SNDHWM, QUEUE_LIMIT)
    socket.set(zmq.RCVHWM, QUEUE_LIMIT)
    socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.set(zmq.HEARTBEAT_IVL, silence_ms // 4)
    socket.set(zmq.HEARTBEAT_TIMEOUT, silence_ms)
    socket.set(zmq.HEARTBEAT_TTL, silence_ms)
    socket.set(zmq.RECONNECT_IVL, 50)
    socket.set(zmq.RECONNECT_IVL_MAX, 500)
    socket.set(zmq.IPV6, "[" in address)
    return socket


def is_readable(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message waits. A third of what it costs to try and to catch zmq.Again."""
    return cast(int, socket.get(zmq.EVENTS)) & _POLLIN != 0


def receive(socket: zmq.Socket[bytes], *, routed: bool) -> Incoming:
    """The next message of a socket that has one.

    Args:
        socket: `is_readable`.
        routed: it is a ROUTER, so that the sender's identity stands in front.

    Raises:
        ProtocolError: the message is malformed; all of it has been taken off the socket. The error's
            `sender` is who sent it, and `other_version` tells whether it is of another protocol version.
    """
    return _decoded(*_take(socket, routed=routed))


def receive_known(socket: zmq.Socket[bytes]) -> tuple[str, Incoming]:
    """As `receive` on a ROUTER that a guard protects: also whose key the sender has proven to hold."""
    sender, header, payload = _take(socket, routed=True)
    return str(header.get("User-Id")), _decoded(sender, header, payload)


def _take(socket: zmq.Socket[bytes], *, routed: bool) -> tuple[bytes, zmq.Frame, Buffer | None]:
    sender = socket.recv(_NOBLOCK) if routed else b""
    header = socket.recv(_NOBLOCK, copy=False)
    payload: Buffer | None = None
    if header.more:
        frame = socket.recv(_NOBLOCK, copy=False)
        payload = frame.bytes if len(frame) <= SMALL_BYTES else frame.buffer
        if frame.more:
            while socket.get(zmq.RCVMORE):
                socket.recv(zmq.NOBLOCK, copy=False)
            raise ProtocolError("a message has more than two parts", sender=sender, other_version=False)
    return sender, header, payload


def _decoded(sender: bytes, header: zmq.Frame, payload: Buffer | None) -> Incoming:
    try:
        return sender, decode_header(header.buffer), payload
    except ProtocolError as error:
        other = _is_other_version(header.buffer)
        raise ProtocolError(str(error), sender=sender, other_version=other) from None


def decode_header(header: Buffer) -> RowsFields | Message:
    """As `messages.decode`, but the header of rows, which come by the thousand, stays a list.

    Raises:
        ProtocolError: as there.
    """
    if len(header) > HEADER_LIMIT or len(header) < 2:
        raise ProtocolError("a header is too short or too long")
    plain = unpack(header)
    if type(plain) is list and len(plain) == 12 and plain[0] == VERSION and plain[1] == _ROWS:
        fields = plain[2:]
        session, epoch, frame, transfer, tensor, start, stop, sender, sent_s, coding = fields
        if (
            type(session) is type(epoch) is type(frame) is type(transfer) is type(start) is int
            and type(stop) is type(sender) is int
            and type(tensor) is type(coding) is str
            and type(sent_s) is float
            and frame >= 0
        ):
            return fields
        raise ProtocolError("the header of rows has fields of wrong types")
    return decode(header)


def send(
    socket: zmq.Socket[bytes],
    header: bytes,
    payload: Buffer | None = None,
    *,
    to: bytes = b"",
    copy: bool = False,
) -> None:
    """Queues one message, all or nothing.

    Args:
        socket: where.
        header: an encoded header.
        payload: must not change until it is sent, unless `copy`.
        to: on a ROUTER, whom.
        copy: the payload may change as soon as this returns.

    Raises:
        zmq.Again: the connection's queue is full.
        zmq.ZMQError: on a ROUTER, EHOSTUNREACH: the receiver has gone.
    """
    if to:
        socket.send(to, _MORE)
    if payload is None:
        socket.send(header, _NOBLOCK)
    else:
        socket.send(header, _MORE)
        socket.send(payload, _NOBLOCK, copy=copy)


def size_of(payload: Buffer | None) -> int:
    """Bytes of a payload, whatever its shape."""
    return 0 if payload is None else memoryview(payload).nbytes


def rows_header(*fields: int | float | str, coding: str = RAW) -> bytes:
    """The encoded header of a RowsMessage, from its other fields in order."""
    return bytes(msgpack.packb((VERSION, _ROWS, *fields, coding)))


def _is_other_version(header: Buffer) -> bool:
    if len(header) > HEADER_LIMIT:
        return False
    try:
        plain = unpack(header)
    except ProtocolError:
        return False
    return isinstance(plain, list) and len(plain) > 1 and type(plain[0]) is int and plain[0] != VERSION


def send_message(
    socket: zmq.Socket[bytes], message: Message, payload: Buffer | None = None, *, to: bytes = b""
) -> None:
    """Encodes and queues a message; see `send`."""
    send(socket, encode(message), payload, to=to)
