"""Model distribution: the store of a peer, and what a requester sends to it."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from distredge.errors import ProtocolError
from distredge.protocol.messages import BlobChunk, BlobReady, Failure, NeedBlob, OfferBlob
from distredge.runtime.blobs import CHUNK_BYTES, WINDOW_BYTES, BlobSending, BlobSource, BlobStore

DATA = random.Random(0).randbytes(3 * CHUNK_BYTES + 1000)
SHA = hashlib.sha256(DATA).hexdigest()


def offer(session: int = 1, sha256: str = SHA, total: int = len(DATA)) -> OfferBlob:
    return OfferBlob(session, sha256, total)


def chunk(at: int, session: int = 1, data: bytes = DATA, sha256: str = SHA) -> tuple[BlobChunk, bytes]:
    return BlobChunk(session, sha256, at, len(data)), data[at : at + CHUNK_BYTES]


def deliver(store: BlobStore, session: int, sending: BlobSending, offset: int) -> list[object]:
    """Sends until the store asks for nothing more; returns the last replies."""
    replies: list[tuple[int, object]] = [(session, NeedBlob(session, SHA, offset))]
    while isinstance(need := replies[-1][1], NeedBlob):
        chunks = list(sending.credit(session, need.offset))
        assert chunks
        for message, data in chunks:
            replies = list(store.chunk(session, message, data)) or replies
    return [message for _, message in replies]


def files(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()}


def test_a_blob_arrives_and_is_kept(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "models")
    assert store.offer(1, offer()) == [(1, NeedBlob(1, SHA, 0))]
    assert deliver(store, 1, BlobSending(BlobSource(SHA, DATA)), 0) == [BlobReady(1, SHA)]
    assert store.path(SHA).read_bytes() == DATA
    assert files(store.folder) == {".weights", ".whole"}
    assert BlobStore(store.folder).offer(2, offer(2)) == [(2, BlobReady(2, SHA))]


def test_a_file_is_mapped_and_let_go(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    (tmp_path / "empty").write_bytes(b"")
    source = BlobSource(SHA, tmp_path / "file")
    assert source.total_bytes == len(DATA)
    assert b"".join(data for _, data in BlobSending(source).credit(1, 0)) == DATA
    assert bytes(BlobSource(SHA, tmp_path / "empty").open()) == b""


def test_a_large_blob_is_credited_window_by_window() -> None:
    total = 5 * WINDOW_BYTES
    sending = BlobSending(BlobSource(SHA, bytes(total)))
    first = list(sending.credit(1, 0))
    assert [message.offset for message, _ in first] == list(range(0, WINDOW_BYTES, CHUNK_BYTES))
    assert not list(sending.credit(1, 0))
    half = WINDOW_BYTES // 2
    more = [message.offset for message, _ in sending.credit(1, half)]
    assert more == list(range(WINDOW_BYTES, WINDOW_BYTES + half, CHUNK_BYTES))
    with pytest.raises(ProtocolError):
        list(sending.credit(1, total))


def test_the_window_is_asked_for_before_it_is_used_up(tmp_path: Path) -> None:
    data = bytes(WINDOW_BYTES + CHUNK_BYTES)
    sha256 = hashlib.sha256(data).hexdigest()
    store = BlobStore(tmp_path)
    store.offer(1, offer(1, sha256, len(data)))
    asked = []
    for at in range(0, WINDOW_BYTES, CHUNK_BYTES):
        asked += [reply.offset for _, reply in store.chunk(1, *chunk(at, 1, data, sha256))]
    assert asked == [WINDOW_BYTES // 2, WINDOW_BYTES]
    store.close()


def test_an_empty_blob_needs_no_chunk(tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"").hexdigest()
    store = BlobStore(tmp_path)
    assert store.offer(1, offer(1, sha256, 0)) == [(1, BlobReady(1, sha256))]
    assert store.path(sha256).read_bytes() == b""


def test_what_is_half_there_is_continued(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    store.offer(1, offer())
    store.chunk(1, *chunk(0))
    store.leave(1)
    assert files(tmp_path) == {".part"}
    again = BlobStore(tmp_path)
    assert again.offer(2, offer(2)) == [(2, NeedBlob(2, SHA, CHUNK_BYTES))]
    sending = BlobSending(BlobSource(SHA, DATA))
    assert deliver(again, 2, sending, CHUNK_BYTES) == [BlobReady(2, SHA)]


def test_a_damaged_half_is_sent_again_from_the_start(tmp_path: Path) -> None:
    (tmp_path / f"{SHA}.part").write_bytes(bytes(CHUNK_BYTES))
    store = BlobStore(tmp_path)
    assert store.offer(1, offer()) == [(1, NeedBlob(1, SHA, CHUNK_BYTES))]
    assert deliver(store, 1, BlobSending(BlobSource(SHA, DATA)), CHUNK_BYTES) == [BlobReady(1, SHA)]
    assert store.path(SHA).read_bytes() == DATA


def test_nothing_of_a_wrong_hash_is_kept(tmp_path: Path) -> None:
    other = hashlib.sha256(b"something else").hexdigest()
    store = BlobStore(tmp_path, "peer0")
    store.offer(1, offer(1, other))
    replies: list[object] = []
    for at in range(0, len(DATA), CHUNK_BYTES):
        replies += [reply for _, reply in store.chunk(1, *chunk(at, 1, DATA, other))]
    assert isinstance(replies[-1], Failure)
    assert replies[-1].name == "peer0"
    assert not list(tmp_path.iterdir())


def test_a_cached_blob_that_changed_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / f"{SHA}.weights"
    path.write_bytes(DATA)
    store = BlobStore(tmp_path)
    assert store.has(SHA, len(DATA))
    assert not store.has(SHA, len(DATA) - 1)
    path.write_bytes(DATA[:-1] + b"?")
    assert not store.has(SHA)
    assert store.offer(1, offer()) == [(1, NeedBlob(1, SHA, 0))]
    store.close()


def test_two_sessions_may_offer_the_same_blob(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    store.offer(1, offer(1))
    assert store.offer(2, offer(2)) == []
    with pytest.raises(ProtocolError):
        store.chunk(2, *chunk(0, 2))
    for at in range(0, len(DATA), CHUNK_BYTES):
        replies = store.chunk(1, *chunk(at))
    assert replies == [(1, BlobReady(1, SHA)), (2, BlobReady(2, SHA))]


def test_a_session_that_leaves_hands_over(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    store.offer(1, offer(1))
    store.offer(2, offer(2))
    store.chunk(1, *chunk(0))
    assert store.leave(1) == [(2, NeedBlob(2, SHA, CHUNK_BYTES))]
    sending = BlobSending(BlobSource(SHA, DATA))
    assert deliver(store, 2, sending, CHUNK_BYTES) == [BlobReady(2, SHA)]


def test_two_processes_may_share_the_folder(tmp_path: Path) -> None:
    stores = [BlobStore(tmp_path), BlobStore(tmp_path)]
    for session, store in enumerate(stores):
        assert store.offer(session, offer(session)) == [(session, NeedBlob(session, SHA, 0))]
    for at in range(0, len(DATA), CHUNK_BYTES):
        for session, store in enumerate(stores):
            replies = store.chunk(session, *chunk(at, session))
            if at + CHUNK_BYTES > len(DATA):
                assert replies == [(session, BlobReady(session, SHA))]
    assert stores[0].path(SHA).read_bytes() == DATA
    assert files(tmp_path) == {".weights", ".whole"}


@pytest.mark.parametrize(
    ("message", "data"),
    [
        (BlobChunk(1, SHA, CHUNK_BYTES, len(DATA)), DATA[:CHUNK_BYTES]),
        (BlobChunk(1, SHA, 0, len(DATA) + 1), DATA[:CHUNK_BYTES]),
        (BlobChunk(1, SHA, 0, len(DATA)), b""),
        (BlobChunk(1, SHA, 0, len(DATA)), DATA[: CHUNK_BYTES + 1]),
        (BlobChunk(1, "f" * 64, 0, len(DATA)), DATA[:10]),
    ],
    ids=["offset", "total", "empty", "too long", "unasked"],
)
def test_a_chunk_that_does_not_fit_is_refused(tmp_path: Path, message: BlobChunk, data: bytes) -> None:
    store = BlobStore(tmp_path)
    store.offer(1, offer())
    with pytest.raises(ProtocolError):
        store.chunk(1, message, data)
    store.close()


@pytest.mark.parametrize("name", ["../../etc/passwd", "F" * 64, "0" * 63, "", "0" * 64 + "\n"])
def test_a_name_that_is_no_hash_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProtocolError):
        BlobStore(tmp_path).offer(1, offer(1, name))


@pytest.mark.parametrize("total", [-1, 1 << 62])
def test_a_size_that_cannot_be_is_refused(tmp_path: Path, total: int) -> None:
    with pytest.raises(ProtocolError):
        BlobStore(tmp_path).offer(1, offer(1, SHA, total))


def test_a_folder_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ((session, reply),) = BlobStore(tmp_path / "file" / "models", "a").offer(1, offer())
    assert (session, type(reply)) == (1, Failure)
