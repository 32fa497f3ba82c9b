"""The requester's side of model distribution: which peer has which blob, and what is on its way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distredge.protocol.messages import OfferBlob
from distredge.runtime.blobs import BlobSending, BlobSource
from distredge.runtime.link import Link


class BlobSupply:
    """Sends blobs to peers that lack them.

    Args:
        session: of all messages.
        links: to the peers.
    """

    def __init__(self, session: int, links: Sequence[Link]) -> None:
        self._session = session
        self._links = links
        self._held: set[tuple[int, str]] = set()
        self._offered: dict[str, BlobSource] = {}
        self._sending: dict[tuple[int, str], BlobSending] = {}

    def offer(self, blobs: Iterable[BlobSource], peers: Iterable[int]) -> None:
        """Tells these peers of those that they are not known to have."""
        peers = list(peers)
        for blob in blobs:
            self._offered[blob.sha256] = blob
            for at in peers:
                if (at, blob.sha256) not in self._held:
                    offer = OfferBlob(self._session, blob.sha256, blob.total_bytes)
                    self._links[at].send_message(offer)

    def missing(self, blobs: Iterable[BlobSource], peers: Iterable[int]) -> set[int]:
        """Which of these peers lack one of these."""
        hashes = [blob.sha256 for blob in blobs]
        return {at for at in peers if any((at, sha256) not in self._held for sha256 in hashes)}

    def forget(self, at: int) -> None:
        """A peer is lost, and with it everything that is known of it."""
        self._held = {held for held in self._held if held[0] != at}
        self._sending = {key: sending for key, sending in self._sending.items() if key[0] != at}

    def needed(self, at: int, sha256: str, offset: int) -> None:
        """A peer asks for a blob from this byte on. Raises ProtocolError if there is no such byte."""
        if sha256 not in self._offered:
            return
        sending = self._sending.get((at, sha256))
        if sending is None:
            sending = self._sending[at, sha256] = BlobSending(self._offered[sha256])
        for chunk, data in sending.credit(self._session, offset):
            self._links[at].send_message(chunk, data)

    @property
    def under_way(self) -> tuple[int, int]:
        """Bytes that peers have taken of what is being sent, and bytes in all."""
        taken = [sending.taken for sending in self._sending.values()]
        return sum(done for done, _ in taken), sum(of for _, of in taken)

    def ready(self, at: int, sha256: str) -> None:
        """A peer has a blob."""
        self._held.add((at, sha256))
        self._sending.pop((at, sha256), None)

    def close(self) -> None:
        """Lets go of all content; what peers have is remembered."""
        self._sending.clear()
        self._offered.clear()
