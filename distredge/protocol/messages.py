"""Everything that crosses a socket: one msgpack header, then at most one raw buffer.

A header is the list `[VERSION, kind, *fields]`. The fields are checked against the dataclass before
anything else happens, so a message that decodes is well formed. Never pickle.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import msgpack

from distredge.errors import ProtocolError
from distredge.plan.serde import from_plain
from distredge.plan.wire import RAW

VERSION = 2
HEADER_LIMIT = 128 * 1024
"""Bytes of the largest header: the addresses of hundreds of devices. A rows header is under 200."""

PLAN_LIMIT = 8 * 1024 * 1024
"""Bytes of the largest plan. Unpacked it takes at most 72 times as much, since a byte may be an empty list.
That of DenseNet-121, cut at every layer for 16 devices, has 0.5 MB."""

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class RowsMessage:
    """Rows of one transfer, C-contiguous, in the payload. Strings travel as a msgpack list.

    `coding` says how the rows are coded, one of `distredge.plan.wire.CODINGS`. `sent_s` is the sender's
    monotonic clock when it handed the message to its socket.
    """

    kind: ClassVar[str] = "rows"
    session: int
    epoch: int
    frame: int
    transfer: int
    tensor: str
    start: int
    stop: int
    sender: int
    sent_s: float
    coding: str = RAW


@dataclass(frozen=True, slots=True)
class Hello:
    """First message on a connection. `name` is who speaks; `version` is the package's."""

    kind: ClassVar[str] = "hello"
    session: int
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Welcome:
    """A peer's answer to Hello: who it is, and its clock, to line up timelines."""

    kind: ClassVar[str] = "welcome"
    session: int
    name: str
    version: str
    clock_s: float


@dataclass(frozen=True, slots=True)
class NeedBlob:
    """A peer lacks a blob (weights or graph) and has its first `offset` bytes already."""

    kind: ClassVar[str] = "need_blob"
    session: int
    sha256: str
    offset: int


@dataclass(frozen=True, slots=True)
class OfferBlob:
    """Blobs that the next plan needs; the peer answers NeedBlob or BlobReady for each."""

    kind: ClassVar[str] = "offer_blob"
    session: int
    sha256: str
    total_bytes: int


@dataclass(frozen=True, slots=True)
class BlobChunk:
    """Part of a blob, in the payload."""

    kind: ClassVar[str] = "blob_chunk"
    session: int
    sha256: str
    offset: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class BlobReady:
    """The blob is complete and its hash is right."""

    kind: ClassVar[str] = "blob_ready"
    session: int
    sha256: str


@dataclass(frozen=True, slots=True)
class UsePlan:
    """A plan (the payload: msgpack of `to_plain(plan)`), where its devices listen, and their public keys
    (empty where a connection is plain)."""

    kind: ClassVar[str] = "use_plan"
    session: int
    epoch: int
    device: int
    addresses: tuple[str, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanReady:
    """The peer has built its sessions for this epoch and is connected to its neighbours."""

    kind: ClassVar[str] = "plan_ready"
    session: int
    epoch: int
    device: int


@dataclass(frozen=True, slots=True)
class RetirePlan:
    """No further frame comes under this epoch: forget its sessions."""

    kind: ClassVar[str] = "retire_plan"
    session: int
    epoch: int


@dataclass(frozen=True, slots=True)
class DropFrame:
    """The frame is given up."""

    kind: ClassVar[str] = "drop_frame"
    session: int
    epoch: int
    frame: int


@dataclass(frozen=True, slots=True)
class Join:
    """From the requester, on each new connection: this one speaks for the session from now on, and everything
    that the peer knows of it is void. `token` is a secret between the two, the same each time."""

    kind: ClassVar[str] = "join"
    session: int
    token: int


@dataclass(frozen=True, slots=True)
class LostNeighbour:
    """A peer cannot reach another one (a device of the epoch's plan), or that one knows nothing of the epoch;
    `text` says what it saw. The requester decides whose fault it is."""

    kind: ClassVar[str] = "lost_neighbour"
    session: int
    epoch: int
    device: int
    text: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Something went wrong on a peer; `text` is one line for the user. `epoch` is -1 if it concerns none."""

    kind: ClassVar[str] = "failure"
    session: int
    epoch: int
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class FrameFailed:
    """A peer cannot compute a part of a frame, and has given it up; `text` is one line for the user."""

    kind: ClassVar[str] = "frame_failed"
    session: int
    epoch: int
    frame: int
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Liveness and clock; answered with Pong carrying the same number. From a requester the payload may tell
    how long the peer's own transfers take: a msgpack list as in Pong, without tasks."""

    kind: ClassVar[str] = "ping"
    session: int
    number: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to Ping. To a requester the payload tells what its plans took since the last one: a msgpack list
    of `[epoch, [[task, count, seconds], ...], [[transfer, fastest_s], ...]]`."""

    kind: ClassVar[str] = "pong"
    session: int
    number: int
    clock_s: float


@dataclass(frozen=True, slots=True)
class GetTrace:
    """Asks for what happened since the last such question."""

    kind: ClassVar[str] = "get_trace"
    session: int


@dataclass(frozen=True, slots=True)
class Trace:
    """Measured events, by the peer's monotonic clock; the payload is a msgpack list of
    `[what, frame, id, start_s, end_s, bytes]` with what in `run`, `send`, `receive`."""

    kind: ClassVar[str] = "trace"
    session: int
    name: str


@dataclass(frozen=True, slots=True)
class Bye:
    """The session is over: forget everything of it."""

    kind: ClassVar[str] = "bye"
    session: int


Message = (
    RowsMessage
    | Hello
    | Welcome
    | OfferBlob
    | NeedBlob
    | BlobChunk
    | BlobReady
    | UsePlan
    | PlanReady
    | RetirePlan
    | DropFrame
    | Join
    | LostNeighbour
    | Failure
    | FrameFailed
    | Ping
    | Pong
    | GetTrace
    | Trace
    | Bye
)

_KINDS: dict[str, type[Message]] = {kind.kind: kind for kind in Message.__args__}


def encode(message: Message) -> bytes:
    """The header of a message; the payload, if any, is sent behind it as it is."""
    values = [getattr(message, field.name) for field in fields(message)]
    return bytes(msgpack.packb([VERSION, message.kind, *values]))


def decode(header: Buffer) -> Message:
    """The message in a header.

    Raises:
        ProtocolError: not a header, another protocol version, an unknown kind, or wrong fields.
    """
    if len(header) > HEADER_LIMIT:
        raise ProtocolError(f"a header is over the limit of {HEADER_LIMIT} bytes")
    plain = unpack(header)
    if not isinstance(plain, list) or len(plain) < 2:
        raise ProtocolError("a message header must be a list of version, kind and fields")
    version, kind, *values = plain
    if type(version) is not int or version != VERSION:
        raise ProtocolError(f"protocol version {version!r} was received, this is version {VERSION}")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ProtocolError(f"unknown message kind {str(kind)[:40]!r}")
    return from_plain(_KINDS[kind], values)


def unpack(data: Buffer) -> Any:
    """msgpack, bounded by the size of what is read.

    Raises:
        ProtocolError: not msgpack.
    """
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=True, use_list=True)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise ProtocolError(f"not a msgpack message: {type(error).__name__}") from None
