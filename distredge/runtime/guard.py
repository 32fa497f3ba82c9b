"""Who may connect to a peer beyond loopback: holders of the cluster's keys. Everybody else gets nothing."""

from __future__ import annotations

import logging
import struct
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import zmq
from zmq.utils import z85

from distredge.cluster.keys import REQUESTER
from distredge.errors import KeysError
from distredge.runtime.keys import read_pair, read_public
from distredge.runtime.transport import is_readable

_LOG = logging.getLogger(__name__)
_EVENT = struct.Struct("=Hi")
_FAILED = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_MECHANISM_MISMATCH = int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
_DOMAIN = b"distredge"
_VERSION = b"1.0"

LOG_EVERY_S = 10.0
"""Of refusals of one kind, one line in so long: a flood must not fill the log."""
KINDS_LIMIT = 64


class Guard:
    """Answers ZeroMQ's question, for each connection to a socket that it guards, whether to let it in.

    ZeroMQ asks over a socket of a fixed name (its Authentication Protocol, ZAP) when somebody has proven to
    hold a secret key. Whether that is one of ours is looked up in `allowed/`, which is read again when it
    has changed: a host that joins needs no restart of the others.

    Args:
        context: of the socket to guard, which must be bound after this was made.
        folder: of keys.

    Whose key it is stays with each message of the connection: the requester's may do everything, a host's may
    only bring rows.

    Attributes:
        pair: this peer's own.

    Raises:
        KeysError: the keys are missing or unusable.
    """

    def __init__(self, context: zmq.Context[Any], folder: Path) -> None:
        self.pair = read_pair(folder)
        self._folder = folder / "allowed"
        self._allowed: dict[str, str] = {}
        self._read_ns = -1
        self._read_allowed()
        self._questions: zmq.Socket[bytes] = context.socket(zmq.REP)
        self._questions.set(zmq.LINGER, 0)
        self._questions.bind("inproc://zeromq.zap.01")
        self._guarded: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._refused: Counter[str] = Counter()
        self._logged_s: dict[str, float] = {}

    def protect(self, socket: zmq.Socket[bytes]) -> None:
        """Makes a socket take encrypted connections only. To be called before it is bound."""
        socket.set(zmq.CURVE_SERVER, 1)
        socket.set(zmq.CURVE_SECRETKEY, self.pair.secret.encode())
        socket.set(zmq.ZAP_DOMAIN, _DOMAIN)
        self._guarded = socket
        self._monitor = socket.get_monitor_socket(_FAILED)

    @property
    def sockets(self) -> list[zmq.Socket[bytes]]:
        """To be polled; `work` when one of them is readable."""
        return [self._questions, *([] if self._monitor is None else [self._monitor])]

    @property
    def refused(self) -> int:
        """Connections that were not let in."""
        return sum(self._refused.values())

    def allows(self, key: str) -> bool:
        """Whether a public key is one of the cluster's."""
        with suppress(KeysError):
            self._read_allowed()
        return key in self._allowed

    @staticmethod
    def may_command(name: str) -> bool:
        """Whether the holder of the key of this name may have sessions: requesters may, hosts may not."""
        return name.partition("@")[0] == REQUESTER

    def work(self) -> None:
        """Answers what was asked, and logs who came without the right key or without any."""
        while is_readable(self._questions):
            self._answer(self._questions.recv_multipart(zmq.NOBLOCK))
        while self._monitor is not None and is_readable(self._monitor):
            self._note(self._monitor.recv_multipart(zmq.NOBLOCK)[0])

    def close(self) -> None:
        """Closes what this has opened. The guarded socket is closed by its owner."""
        if self._guarded is not None and self._monitor is not None:
            self._guarded.disable_monitor()
            self._monitor.close(0)
        self._questions.close(0)

    def _answer(self, question: list[bytes]) -> None:
        number = question[1] if len(question) > 1 else b""
        name = self._known(question)
        status = [b"200", b"OK", name.encode()] if name else [b"400", b"not one of the cluster's keys", b""]
        self._questions.send_multipart([_VERSION, number, *status, b""], zmq.NOBLOCK)

    def _known(self, question: list[bytes]) -> str:
        """Whose key it is; "" for a stranger's."""
        if len(question) != 7 or question[0] != _VERSION or question[5] != b"CURVE" or len(question[6]) != 32:
            self._refuse("a question about a connection was malformed")
            return ""
        key, where = z85.encode(question[6]).decode(), question[3].decode(errors="replace")
        if not self.allows(key):
            self._refuse(f"{where} has a key that is none of the cluster's", key)
            return ""
        return self._allowed[key]

    def _note(self, event: bytes) -> None:
        kind, value = _EVENT.unpack_from(event)
        if kind != zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            # a plain client sees as soon as we do that nothing will come of it
            self._refuse("somebody came without encryption, or left at once")
        elif value == _MECHANISM_MISMATCH:
            self._refuse("somebody came without encryption")
        else:
            self._refuse("somebody came who has not our public key")

    def _refuse(self, what: str, key: str = "") -> None:
        what = what if what in self._refused or len(self._refused) < KINDS_LIMIT else "others"
        self._refused[what] += 1
        now = time.monotonic()
        if now - self._logged_s.get(what, -LOG_EVERY_S) >= LOG_EVERY_S:
            self._logged_s[what] = now
            count = self._refused[what]
            text = f"{what}{f' ({key})' if key else ''}"
            _LOG.warning("refused: %s%s", text, f", {count} times by now" if count > 1 else "")

    def _read_allowed(self) -> None:
        try:
            changed_ns = self._folder.stat().st_mtime_ns
        except OSError as error:
            raise KeysError(
                f"no keys of others: {self._folder}: {error.strerror}; run `fab deploy`"
            ) from None
        if changed_ns == self._read_ns:
            return
        allowed = {}
        for file in sorted(self._folder.glob("*.key")):
            with suppress(KeysError):  # half written: it will change again
                allowed[read_public(file)] = file.stem
        self._allowed, self._read_ns = allowed, changed_ns
