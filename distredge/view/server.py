"""Serves the live view: one page without outside resources, and the snapshots that it asks for."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Sequence
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from distredge.errors import InputError, PortInUseError
from distredge.view.snapshot import Snapshot, to_json

DEFAULT_ADDRESS = "127.0.0.1:8080"
SNAPSHOTS = "snapshots"
"""Where the page, and `distredge top`, find the snapshots: beside the page."""
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


@cache
def page() -> str:
    """The page, in HTML."""
    return files("distredge.view").joinpath("page.html").read_text()


class ViewServer:
    """Answers at an address, in threads of its own, until it is closed.

    Anybody who reaches the address may look; nothing can be changed there.

    Args:
        address: `host:port`, `port` or `host`; port 0 for any that is free.
        look: the snapshots of this moment.

    Attributes:
        url: of the page.

    Raises:
        InputError: the address is none.
        PortInUseError: it cannot be had.
    """

    def __init__(self, address: str, look: Callable[[], Sequence[Snapshot]]) -> None:
        host, port = split_address(address)
        handler = type("Handler", (_Handler,), {"look": staticmethod(look), "is_guarded": _is_loopback(host)})
        try:
            self._server = ThreadingHTTPServer((host, port), handler)
        except OSError as error:
            text = f"view {host}:{port}: {error.strerror or error}; choose another address"
            raise PortInUseError(text) from None
        self._server.daemon_threads = True
        self.url = f"http://{host}:{self._server.server_address[1]}/"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="view", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def split_address(address: str) -> tuple[str, int]:
    """Host and port; what is left out is that of `DEFAULT_ADDRESS`.

    Raises:
        InputError: it is no address.
    """
    default_host, _, default_port = DEFAULT_ADDRESS.partition(":")
    host, _, port = address.rpartition(":") if ":" in address else ("", "", address)
    if ":" not in address and not address.isdecimal():
        host, port = address, default_port
    if not port.isdecimal() or int(port) > 65535 or ":" in host or "/" in host:
        raise InputError(f"{address!r} is no address; write it as {DEFAULT_ADDRESS}")
    return host or default_host, int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Handler(BaseHTTPRequestHandler):
    look: Callable[[], Sequence[Snapshot]]
    is_guarded: bool
    protocol_version = "HTTP/1.1"
    timeout = 10
    server_version = "DistrEdge"
    sys_version = ""

    def do_GET(self) -> None:
        """Answers the page or the snapshots."""
        path = self.path.partition("?")[0]
        if self.is_guarded and not self._names_loopback():
            # A page from elsewhere, whose host name was made to lead here, must not read this.
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", "this view answers to local names only\n")
        elif path == "/":
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", page())
        elif path == f"/{SNAPSHOTS}":
            self._answer(HTTPStatus.OK, "application/json", to_json(self.look()))
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", "there is only /\n")

    def _names_loopback(self) -> bool:
        host = self.headers.get("Host", "").strip()
        return _is_loopback(host.rsplit(":", 1)[0] if ":" in host else host)

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its base class's name)
        """Says nothing: who looks is no news."""
