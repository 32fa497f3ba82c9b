"""Reads the snapshots that a view, or `distredge serve`, offers."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request

from distredge.errors import PeerTimeoutError, ProtocolError
from distredge.view.server import SNAPSHOTS, split_address
from distredge.view.snapshot import FORMAT

TIMEOUT_S = 5.0
LIMIT_BYTES = 16 * 1024 * 1024
PLACES = (f"/{SNAPSHOTS}", f"/view/{SNAPSHOTS}")
"""Of a session's own view, and of `distredge serve`."""
# Loopback and the local network: a proxy is nobody to ask.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def find_view(address: str) -> str:
    """Where the snapshots of an address are.

    Args:
        address: `host:port`, or a page's URL.

    Raises:
        InputError: it is no address.
        PeerTimeoutError: nobody answers there.
        ProtocolError: whoever answers has no view.
    """
    bare = address.removeprefix("http://").rstrip("/").removesuffix("/view")
    host, port = split_address(bare)
    for place in PLACES:
        url = f"http://{host}:{port}{place}"
        try:
            if FORMAT.encode() in read(url):
                return url
        except urllib.error.HTTPError:
            continue
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise PeerTimeoutError(
                f"nobody answers at {host}:{port} ({reason}); start a session with `distredge run --view`"
            ) from None
    raise ProtocolError(f"{host}:{port} has no view; is it the address that `--view` printed?")


def read(url: str) -> bytes:
    """What is there now.

    Raises:
        OSError: nobody answers.
    """
    with _opener.open(url, timeout=TIMEOUT_S) as answer:
        text: bytes = answer.read(LIMIT_BYTES)
    return text
