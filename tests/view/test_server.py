"""The view's server: who gets what, and who nothing; `distredge top` beside it."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest

from distredge.cli import main
from distredge.errors import DistrEdgeError, InputError
from distredge.runtime.session import InferenceSession
from distredge.view.server import ViewServer, page, split_address
from distredge.view.snapshot import Snapshot, from_json
from tests.models import chain
from tests.runtime.conftest import _started_once, nothing_left_behind  # noqa: F401 (fixtures)

ONE = Snapshot("m", 0.0, 0, 0, 0.0, None, None, (), (), None, ())


@pytest.fixture
def server() -> Iterator[ViewServer]:
    server = ViewServer("127.0.0.1:0", lambda: [ONE])
    yield server
    server.close()


def get(server: ViewServer, path: str, host: str | None = None) -> tuple[int, str, dict[str, str]]:
    address = server.url.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", path, headers={} if host is None else {"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.headers)
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:81", ("0.0.0.0", 81)),
        ("81", ("127.0.0.1", 81)),
        (":81", ("127.0.0.1", 81)),
        ("localhost", ("localhost", 8080)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address


@pytest.mark.parametrize("text", ["host:x", "a:b:1", "h:70000", "http://h:1"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match=r"is no address; write it as 127\.0\.0\.1:8080"):
        split_address(text)


def test_the_page_needs_nothing_from_outside(server: ViewServer) -> None:
    status, text, headers = get(server, "/")
    assert (status, text) == (200, page())
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    outside = set(re.findall(r"https?://[^\"'\s]+", text))
    assert outside == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}  # names, not addresses
    assert not re.search(r"\b(src|href)\s*=(?!\"data:,)|@import|innerHTML", text)


def test_snapshots_and_nothing_else(server: ViewServer) -> None:
    status, text, _ = get(server, "/snapshots")
    assert status == 200
    assert from_json(text) == [ONE]
    assert get(server, "/elsewhere")[0] == 404


@pytest.mark.parametrize(("host", "status"), [("localhost:80", 200), ("[::1]", 403), ("evil.example", 403)])
def test_pages_of_other_hosts_cannot_read_it(server: ViewServer, host: str, status: int) -> None:
    assert get(server, "/snapshots", host)[0] == status


def test_an_address_that_is_taken(server: ViewServer) -> None:
    taken = server.url.removeprefix("http://").rstrip("/")
    with pytest.raises(DistrEdgeError, match=r"view 127\.0\.0\.1:.*; choose another address"):
        ViewServer(taken, list)


def test_a_session_shows_itself_until_it_is_closed(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    feed = np.zeros((1, 3, 16, 6), "float32")
    session = InferenceSession(chain(), local_peers=2, policy="equal", cache_dir=cache, view="127.0.0.1:0")
    with session:
        while session.snapshot is None or session.snapshot.frames < 5:
            for _ in session.stream(repeat(feed, 20)):
                pass
        url = session.view_url
        with urllib.request.urlopen(url + "snapshots", timeout=10) as answer:
            (seen,) = from_json(answer.read())
        assert [device.name for device in seen.devices] == ["peer0", "peer1"]
        assert all(device.is_up for device in seen.devices)
        assert seen.plan is not None
        assert seen.latency_ms is not None
        assert {link.source for link in seen.links} >= {"requester", "peer0", "peer1"}
        assert main(["top", url, "--count", "1"]) == 0
        assert "peer1" in capsys.readouterr().out
        assert main(["top", url.removeprefix("http://").rstrip("/"), "--count", "1", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["sessions"][0]["model"] == "model"
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=5)
    assert main(["top", url]) == 2
    assert re.fullmatch(r"distredge: error: nobody answers at 127.0.0.1:\d+ .*\n", capsys.readouterr().err)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path
