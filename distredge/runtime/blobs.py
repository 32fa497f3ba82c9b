"""Blobs (weights and graphs) travel once, in chunks, and are kept by their hash.

requester  OfferBlob ->            a peer that has it answers BlobReady
peer       <- NeedBlob(offset)     credit: chunks from here, up to WINDOW_BYTES further
requester  BlobChunk, BlobChunk ->
peer       <- NeedBlob(offset)     more credit, long before the last is used up
peer       <- BlobReady            complete, and the hash is right
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from distredge.errors import ProtocolError
from distredge.protocol.messages import BlobChunk, BlobReady, Buffer, Failure, Message, NeedBlob, OfferBlob

CHUNK_BYTES = 4 * 1024 * 1024
WINDOW_BYTES = 8 * CHUNK_BYTES
BLOB_LIMIT = 64 * 1024**3
INCOMING_LIMIT = 8
"""Blobs on their way from one session; honest ones send two."""
SPARE_BYTES = 256 * 1024 * 1024
"""Of the disk: left free, since others write to it too."""

_SHA256 = re.compile(r"[0-9a-f]{64}")

Replies = list[tuple[int, Message]]
"""Session ids, and what to tell them."""


class BlobStore:
    """A peer's cache. It never holds a blob under a name that is not its hash.

    Every blob is a file `<sha256>.weights`: the references inside a model fix that name for weights, and
    for graphs it does not matter. Processes may share the folder. Not for several threads at once.

    Args:
        folder: made when it is needed.
        name: this peer's, for failures.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        self.folder = folder
        self._name = name
        self._incoming: dict[str, _Incoming] = {}

    def path(self, sha256: str) -> Path:
        """Where a blob is, or would be.

        Raises:
            ProtocolError: not a hash. (It comes from the network and becomes a file name.)
        """
        if not _SHA256.fullmatch(sha256):
            raise ProtocolError("a blob's name is not a SHA-256")
        return self.folder / f"{sha256}.weights"

    def has(self, sha256: str, total_bytes: int | None = None) -> bool:
        """Whether the blob is here and whole. Reads it once if nobody has vouched for it since it changed."""
        path = self.path(sha256)
        try:
            state = path.stat()
        except OSError:
            return False
        if total_bytes is not None and state.st_size != total_bytes:
            return False
        if self._stamp(sha256).is_file() and self._stamp(sha256).read_text() == _fingerprint(state):
            return True
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                return False
        self._vouch(sha256, state)
        return True

    def vouch(self, sha256: str) -> None:
        """Says that a blob was just written here, whole: nobody need read it again to find out."""
        self._vouch(sha256, self.path(sha256).stat())

    def offer(self, session: int, offer: OfferBlob) -> Replies:
        """A session has this blob.

        Raises:
            ProtocolError: the name or the size is not acceptable.
        """
        if not 0 <= offer.total_bytes <= BLOB_LIMIT:
            raise ProtocolError(f"a blob of {offer.total_bytes} bytes was offered")
        if self.has(offer.sha256, offer.total_bytes):
            return [(session, BlobReady(session, offer.sha256))]
        incoming = self._incoming.get(offer.sha256)
        if incoming is not None:
            if incoming.total_bytes != offer.total_bytes:
                raise ProtocolError("a blob was offered with two sizes")
            # It is on its way from another session: this one is told when it is here.
            if session not in incoming.sessions:
                incoming.sessions.append(session)
            return []
        if sum(session in each.sessions for each in self._incoming.values()) >= INCOMING_LIMIT:
            raise ProtocolError("too many blobs were offered at once")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            promised = sum(each.total_bytes - each.size for each in self._incoming.values())
            free = shutil.disk_usage(self.folder).free - promised - SPARE_BYTES
            if free < offer.total_bytes:
                raise OSError(f"no room for {offer.total_bytes} bytes")
            incoming = _Incoming(self.path(offer.sha256), offer.total_bytes, session)
        except OSError as error:
            return [(session, self._failure(session, f"cannot keep the model in {self.folder}: {error}"))]
        self._incoming[offer.sha256] = incoming
        if incoming.size == incoming.total_bytes:
            return self._complete(offer.sha256, incoming)
        return [(session, NeedBlob(session, offer.sha256, incoming.size))]

    def chunk(self, session: int, chunk: BlobChunk, data: Buffer) -> Replies:
        """The next piece of a blob.

        Raises:
            ProtocolError: nobody asked for it, or it is not the next piece.
        """
        incoming = self._incoming.get(chunk.sha256)
        if incoming is None or incoming.sessions[0] != session:
            raise ProtocolError("a chunk came that nobody asked for")
        length = len(data)
        if (
            (chunk.offset, chunk.total_bytes) != (incoming.size, incoming.total_bytes)
            or not 0 < length <= CHUNK_BYTES
            or chunk.offset + length > incoming.total_bytes
        ):
            raise ProtocolError("a chunk came that does not fit")
        try:
            incoming.write(data)
        except OSError as error:
            self._drop(chunk.sha256)
            text = f"cannot keep the model in {self.folder}: {error}"
            return [(each, self._failure(each, text)) for each in incoming.sessions]
        if incoming.size == incoming.total_bytes:
            return self._complete(chunk.sha256, incoming)
        if incoming.size - incoming.credited >= WINDOW_BYTES // 2:
            incoming.credited = incoming.size
            return [(session, NeedBlob(session, chunk.sha256, incoming.size))]
        return []

    def leave(self, session: int) -> Replies:
        """The session is over. What it was sending is continued by another one, or kept for later."""
        replies: Replies = []
        for sha256, incoming in list(self._incoming.items()):
            if session not in incoming.sessions:
                continue
            was_sending = incoming.sessions[0] == session
            incoming.sessions.remove(session)
            if not incoming.sessions:
                incoming.close()
                del self._incoming[sha256]
            elif was_sending:
                heir = incoming.sessions[0]
                incoming.credited = incoming.size
                replies.append((heir, NeedBlob(heir, sha256, incoming.size)))
        return replies

    def close(self) -> None:
        """Closes all files."""
        for incoming in self._incoming.values():
            incoming.close()
        self._incoming.clear()

    def _complete(self, sha256: str, incoming: _Incoming) -> Replies:
        if incoming.digest() == sha256:
            incoming.keep_as(self.path(sha256))
            del self._incoming[sha256]
            self.vouch(sha256)
            return [(session, BlobReady(session, sha256)) for session in incoming.sessions]
        if incoming.resumed and incoming.total_bytes:
            # The fault may lie in what an earlier transfer left behind: all of it again, once.
            incoming.restart()
            session = incoming.sessions[0]
            return [(session, NeedBlob(session, sha256, 0))]
        self._drop(sha256)
        text = "the model that arrived does not have the hash that was announced"
        return [(session, self._failure(session, text)) for session in incoming.sessions]

    def _drop(self, sha256: str) -> None:
        self._incoming.pop(sha256).discard()

    def _failure(self, session: int, text: str) -> Failure:
        return Failure(session, -1, self._name, text)

    def _stamp(self, sha256: str) -> Path:
        return self.path(sha256).with_suffix(".whole")

    def _vouch(self, sha256: str, state: os.stat_result) -> None:
        # A folder that cannot be written costs a second look each time.
        with suppress(OSError):
            self._stamp(sha256).write_text(_fingerprint(state))


class _Incoming:
    """A blob on its way. Its file is called by the hash and `.part`, so that a later transfer resumes it."""

    def __init__(self, target: Path, total_bytes: int, session: int) -> None:
        self.total_bytes = total_bytes
        self.sessions = [session]
        self._shared = target.with_suffix(".part")
        self._path, self._file = _open_part(self._shared)
        self._hash = hashlib.sha256()
        self.size = self._read_back()
        self.credited = self.size
        self.resumed = self.size > 0

    def _read_back(self) -> int:
        if os.fstat(self._file.fileno()).st_size > self.total_bytes:
            self._file.truncate(0)
        while block := self._file.read(CHUNK_BYTES):
            self._hash.update(block)
        return self._file.tell()

    def write(self, data: Buffer) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def digest(self) -> str:
        return self._hash.hexdigest()

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.size = self.credited = 0
        self.resumed = False

    def keep_as(self, target: Path) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._path, target)
        self._file.close()

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)
        self._file.close()

    def close(self) -> None:
        """Keeps what came, for a later transfer; unless nobody would find it."""
        if self._path != self._shared:
            self._path.unlink(missing_ok=True)
        self._file.close()


def _open_part(shared: Path) -> tuple[Path, IO[bytes]]:
    """The unfinished file of a blob, or a private one where another process is writing that."""
    file = os.fdopen(os.open(shared, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The other process may have finished, and renamed it, between our opening and locking it.
        if shared.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return shared, file
    except OSError:
        pass
    file.close()
    handle, name = tempfile.mkstemp(dir=shared.parent, suffix=".part")
    return Path(name), os.fdopen(handle, "r+b")


def _fingerprint(state: os.stat_result) -> str:
    return f"{state.st_size} {state.st_mtime_ns} {state.st_ino}"


@dataclass(frozen=True)
class BlobSource:
    """A blob that this process can send.

    Attributes:
        content: the bytes, or the file that holds them.
    """

    sha256: str
    content: bytes | Path

    @property
    def total_bytes(self) -> int:
        """Size of the content."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def open(self) -> Buffer:
        """The content; a file is mapped, so that it is read as it is sent."""
        if isinstance(self.content, bytes):
            return self.content
        with self.content.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return b""
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class BlobSending:
    """One blob on its way to one peer."""

    def __init__(self, source: BlobSource) -> None:
        self._sha256, self._data = source.sha256, memoryview(source.open())
        self._sent = self._credited = 0

    @property
    def taken(self) -> tuple[int, int]:
        """Bytes that the peer has, and bytes in all."""
        return self._credited, len(self._data)

    def credit(self, session: int, offset: int) -> Iterator[tuple[BlobChunk, Buffer]]:
        """The chunks that a peer may be sent now that it asks for those from `offset` on.

        Raises:
            ProtocolError: there is nothing at that offset.
        """
        total = len(self._data)
        if not 0 <= offset < total:
            raise ProtocolError(f"byte {offset} of a blob of {total} bytes was asked for")
        if offset < self._credited or offset > self._sent:
            self._sent = offset  # it starts anew, or has something already
        self._credited = offset
        end = min(offset + WINDOW_BYTES, total)
        while self._sent < end:
            at = self._sent
            data = self._data[at : at + min(CHUNK_BYTES, total - at)]
            self._sent += len(data)
            yield BlobChunk(session, self._sha256, at, total), data
