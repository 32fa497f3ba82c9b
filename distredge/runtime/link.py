"""One connection to a peer's socket, watched for loss."""

from __future__ import annotations

import struct
import time
from collections import deque
from typing import Any

import zmq

from distredge.protocol.messages import Buffer, Message, encode
from distredge.runtime.keys import KeyPair
from distredge.runtime.transport import SILENCE_MS, connect_dealer, is_readable, send, size_of

_REFUSED = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
_FAILED = int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL) | _REFUSED
_MALFORMED = int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
_EVENT = struct.Struct("=H")
HOPELESS = 5
"""Encrypted handshakes that break off without a reason, in a row. One or two may be a peer that ends."""
WAITING_BYTES = 256 * 1024 * 1024
"""Payloads that a peer keeps for somebody who does not take them."""
FAREWELL_MS = 200
"""How long closing waits for last messages to leave."""


class Link:
    """A DEALER connected to a peer, with what does not fit into its queue at the moment.

    Args:
        context: of the sockets.
        name: the peer's, for messages.
        address: where it listens.
        own: our keys, for an encrypted connection.
        peer_key: the peer's public key; empty for a plain connection.
        silence_ms: how long nothing may come before the connection counts as lost.

    Attributes:
        complaint: why whoever answers there does not talk to us, as far as that is known; else empty.
        is_refused: it makes no sense to wait: the peer does not accept our key, or has not its own.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        name: str,
        address: str,
        own: KeyPair | None = None,
        peer_key: str = "",
        silence_ms: int = SILENCE_MS,
    ) -> None:
        self.name = name
        self.address = address
        self.socket = connect_dealer(context, address, own, peer_key, silence_ms)
        self.welcomed = False
        self.heard_s = time.monotonic()
        self.complaint = ""
        self.is_refused = False
        self._failures = 0
        self.is_encrypted = bool(peer_key)
        self._monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | _FAILED)
        self._waiting: deque[tuple[bytes, Buffer | None]] = deque()
        self.waiting_bytes = 0

    def send(self, header: bytes, payload: Buffer | None = None, *, copy: bool = False) -> None:
        """Sends now, or as soon as the connection's queue has room; after `close`, never."""
        if self.socket.closed:
            return
        if not self._waiting:
            try:
                send(self.socket, header, payload, copy=copy)
                return
            except zmq.Again:
                pass
        self.waiting_bytes += size_of(payload)
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
            self.waiting_bytes -= size_of(payload)
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
            kind = _EVENT.unpack_from(event[0])[0]
            if kind & _FAILED:
                self._failures += 1
                self.complaint = self._explain(kind == _REFUSED)
                final = kind in (_REFUSED, _MALFORMED) or self._failures >= HOPELESS
                self.is_refused = self.is_encrypted and final
            broken = broken or kind == zmq.EVENT_DISCONNECTED
        return broken

    def _explain(self, looked_at_key: bool) -> str:
        if not self.is_encrypted:
            return "is no DistrEdge peer, or one that wants encryption, or it does not answer"
        if looked_at_key:
            return "does not accept our key; run `fab deploy` with this hosts file"
        return "does not encrypt, or has not the key that we know of it; run `fab deploy restart`"

    def close(self, *, farewell: bool = False) -> None:
        """Closes the connection; with `farewell`, last messages get a moment to leave. It can be repeated."""
        self._waiting.clear()
        if self.socket.closed:
            return
        self.socket.disable_monitor()
        self._monitor.close(0)
        self.socket.close(FAREWELL_MS if farewell else 0)
