"""One connection to a peer's socket, watched for loss."""

from __future__ import annotations

import struct
import time
from collections import deque
from typing import Any

import zmq

from distredge.protocol.messages import Buffer, Message, encode
from distredge.runtime.transport import connect_dealer, is_readable, send

_NO_PEER = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_EVENT = struct.Struct("=hi")
FAREWELL_MS = 200
"""How long closing waits for last messages to leave."""


class Link:
    """A DEALER connected to a peer, with what does not fit into its queue at the moment.

    Args:
        context: of the sockets.
        name: the peer's, for messages.
        address: where it listens.
    """

    def __init__(self, context: zmq.Context[Any], name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.socket = connect_dealer(context, address)
        self.welcomed = False
        self.heard_s = time.monotonic()
        self.no_peer = False
        """Whether something answers there that speaks no ZeroMQ."""
        self._monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | _NO_PEER)
        self._waiting: deque[tuple[bytes, Buffer | None]] = deque()

    def send(self, header: bytes, payload: Buffer | None = None, *, copy: bool = False) -> None:
        """Sends now, or as soon as the connection's queue has room."""
        if not self._waiting:
            try:
                send(self.socket, header, payload, copy=copy)
                return
            except zmq.Again:
                pass
        self._waiting.append((header, bytes(payload) if copy and payload is not None else payload))

    def send_message(self, message: Message, payload: Buffer | None = None) -> None:
        """Encodes and sends."""
        self.send(encode(message), payload)

    def flush(self) -> bool:
        """Sends what waits, if there is room now. Returns whether something still waits."""
        while self._waiting:
            header, payload = self._waiting[0]
            try:
                send(self.socket, header, payload)
            except zmq.Again:
                return True
            self._waiting.popleft()
        return False

    @property
    def is_waiting(self) -> bool:
        """Whether something did not fit into the connection's queue yet."""
        return bool(self._waiting)

    def is_broken(self) -> bool:
        """Whether the connection, once made, was lost since the last question."""
        broken = False
        while is_readable(self._monitor):
            event = self._monitor.recv_multipart(zmq.NOBLOCK)
            kind = _EVENT.unpack_from(event[0])[0] & 0xFFFF
            self.no_peer = self.no_peer or bool(kind & _NO_PEER)
            broken = broken or kind == zmq.EVENT_DISCONNECTED
        return broken

    def close(self, *, farewell: bool = False) -> None:
        """Closes the connection; with `farewell`, last messages get a moment to leave."""
        self.socket.disable_monitor()
        self._monitor.close(0)
        self.socket.close(FAREWELL_MS if farewell else 0)
