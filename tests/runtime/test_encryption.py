"""Encrypted connections: who is let in, and what everybody else sees."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
import zmq.auth

from distredge.cluster.hosts import load_hosts
from distredge.errors import KeysError, PeerError, PeerRefusedError, PeerTimeoutError
from distredge.protocol.messages import (
    Bye,
    Failure,
    GetTrace,
    Hello,
    OfferBlob,
    Ping,
    Pong,
    UsePlan,
    encode,
)
from distredge.runtime.keys import read_pair, read_public
from distredge.runtime.link import Link
from distredge.runtime.peer import Peer, PeerSettings
from distredge.runtime.session import InferenceSession
from distredge.runtime.transport import connect_dealer, receive, rows_header
from tests.models import chain
from tests.runtime.conftest import wait_until

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 6)).astype("float32")


@dataclass
class Town:
    """Keys as `fab deploy` lays them out, and peers that use them on loopback addresses."""

    folder: Path
    cache: Path
    names: tuple[str, ...] = ("a", "b")
    addresses: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.names, "controller", "stranger"):
            self.home(name).joinpath("allowed").mkdir(parents=True)
            zmq.auth.create_certificates(self.home(name), "controller" if name == "controller" else "peer")
            next(self.home(name).glob("*.key_secret")).chmod(0o600)
        (self.home("controller") / "hosts").mkdir()
        for name in self.names:
            shutil.copy(self.home(name) / "peer.key", self.home("controller") / "hosts" / f"{name}.key")
            for other in self.names:
                self.introduce(other, to=name)
            self.introduce("controller", to=name)

    def home(self, name: str) -> Path:
        return self.folder / name

    def introduce(self, name: str, to: str) -> None:
        (public,) = self.home(name).glob("*.key")
        called = "requester" if name == "controller" else name
        shutil.copy(public, self.home(to) / "allowed" / f"{called}.key")

    @contextmanager
    def peer(self, name: str, *, plain: bool = False) -> Iterator[Peer]:
        """A peer, in threads of this process."""
        keys = None if plain else self.home(name)
        peer = Peer(PeerSettings("tcp://127.0.0.1:0", name, 1, cache_dir=self.cache, keys=keys))
        self.addresses[name] = peer.address
        thread = threading.Thread(target=peer.serve, name=name)
        thread.start()
        try:
            yield peer
        finally:
            peer.stop()
            thread.join()
            peer.close()

    def hosts(self, encryption: str = "on") -> Path:
        file = self.folder / "hosts.ini"
        text = f"[requester]\nkeys = controller\n[network]\nencryption = {encryption}\n"
        for name, address in self.addresses.items():
            text += f"[provider:{name}]\naddress = {address.removeprefix('tcp://')}\n"
        file.write_text(text)
        return file

    def session(self, encryption: str = "on", timeout_s: float = 10.0) -> InferenceSession:
        return InferenceSession(
            chain(), hosts=self.hosts(encryption), policy="equal", cache_dir=self.cache, timeout_s=timeout_s
        )


@pytest.fixture
def town(tmp_path: Path, cache: Path) -> Town:
    return Town(tmp_path, cache)


def expected(cache: Path) -> np.ndarray[Any, Any]:
    with InferenceSession(chain(), local_peers=2, policy="equal", cache_dir=cache) as session:
        return session.run(None, {"x0": IMAGE})[0]


def test_frames_through_encrypted_peers(town: Town, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with town.peer("a"), town.peer("b"), town.session() as session:
        links = session._client._peers.links
        assert all(link.socket.get(zmq.MECHANISM) == zmq.CURVE for link in links)
        assert len(session.plan.devices) == 2
        assert any(t.source >= 0 and t.target >= 0 for t in session.plan.transfers), "peer to peer, too"
        (answer,) = session.run(None, {"x0": IMAGE})
        for (again,) in session.stream([IMAGE] * 20):
            assert np.array_equal(again, answer)
    assert np.array_equal(answer, expected(cache))
    assert caplog.text == ""


def test_a_foreign_key_is_refused_at_once_and_logged(
    town: Town, eventually: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    with town.peer("a"):
        (town.home("a") / "allowed" / "requester.key").unlink()
        start = time.monotonic()
        with pytest.raises(PeerRefusedError, match=r"peer a at .* does not accept our key; run `fab deploy`"):
            town.session()
        assert time.monotonic() - start < 5
        assert "refused: 127.0.0.1 has a key that is none of the cluster's" in caplog.text
        assert read_public(town.home("controller") / "controller.key") in caplog.text
        # and whoever is introduced later needs no restart
        town.introduce("controller", to="a")
        with town.session() as session:
            session.run(None, {"x0": IMAGE})


def test_a_peer_with_another_key_than_the_known_one(
    town: Town, eventually: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    with town.peer("a"):
        shutil.copy(town.home("stranger") / "peer.key", town.home("controller") / "hosts" / "a.key")
        with pytest.raises(PeerRefusedError, match=r"peer a at .* has not the key that we know of it"):
            town.session(timeout_s=60)
        eventually(lambda: "refused: somebody came who has not our public key" in caplog.text)


def test_a_plain_client_gets_nothing(
    town: Town, eventually: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    with town.peer("a"), zmq.Context() as context:
        socket = connect_dealer(context, town.addresses["a"])
        socket.send(encode(Hello(1, "x", "y")))
        eventually(lambda: "refused: somebody came without encryption" in caplog.text)
        assert not socket.poll(200)
        socket.close(0)
        with pytest.raises(PeerTimeoutError, match="is no DistrEdge peer, or one that wants encryption"):
            town.session("off", timeout_s=2)


def test_a_plain_peer_is_not_spoken_to(town: Town) -> None:
    with (
        town.peer("a", plain=True),
        pytest.raises(PeerRefusedError, match=r"peer a at .* does not encrypt, or has not the key"),
    ):
        town.session(timeout_s=60)


def test_peers_that_were_not_introduced_to_each_other(town: Town) -> None:
    (town.home("b") / "allowed" / "a.key").unlink()
    with (
        town.peer("a"),
        town.peer("b"),
        pytest.raises(PeerError, match=r"does not accept our key|has no key of this cluster"),
    ):
        town.session()
    town.introduce("a", to="b")
    (town.home("a") / "allowed" / "b.key").unlink()
    with (
        town.peer("a"),
        town.peer("b"),
        pytest.raises(
            PeerError, match=r"peer a cannot reach its neighbours: b at .* has no key of this clus"
        ),
    ):
        town.session()


def test_a_link_with_a_foreign_key_knows_it(
    town: Town, eventually: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    with town.peer("a"), zmq.Context() as context:
        key = read_public(town.home("a") / "peer.key")
        link = Link(context, "a", town.addresses["a"], read_pair(town.home("stranger")), key)
        link.send_message(Hello(1, "x", "y"))
        eventually(lambda: link.is_broken() or link.is_refused)
        assert link.is_refused
        assert not link.socket.poll(100)
        link.close()


def test_a_hosts_key_commands_nobody(town: Town) -> None:
    """Whoever takes a host over can bring rows to its neighbours, and no models."""
    with town.peer("a") as peer, zmq.Context() as context:
        key = read_public(town.home("a") / "peer.key")
        socket = connect_dealer(context, town.addresses["a"], read_pair(town.home("b")), key)
        plan = UsePlan(5, 0, 0, (town.addresses["a"],), ("",))
        for message in (OfferBlob(5, "0" * 64, 10), plan, GetTrace(5), Bye(5)):
            socket.send(encode(message))
        socket.send_multipart([rows_header(5, 0, 0, 0, "x", 0, 1, -1, 0.0), b""])
        socket.send(encode(Ping(5, 1)))
        heard: list[type] = []
        while Pong not in heard:
            assert socket.poll(10_000)
            heard.append(type(receive(socket, routed=False)[1]))
        socket.close(0)
        assert heard == [Failure, Pong], "rows and pings are looked at"
        assert peer.rejected["a host's key is no requester's"] == 4
        assert not peer._tenants
        with town.session() as session:
            session.run(None, {"x0": IMAGE})
        assert peer._guard is not None
        assert [peer._guard.may_command(name) for name in ("requester@b", "requester-b", "b", "")] == [
            True,
            False,
            False,
            False,
        ]


def test_many_strangers_fill_neither_log_nor_sockets(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    with town.peer("a") as peer, zmq.Context() as context:
        key = read_public(town.home("a") / "peer.key")
        stranger, files = read_pair(town.home("stranger")), len(list(Path("/proc/self/fd").iterdir()))
        sockets = [connect_dealer(context, town.addresses["a"], stranger, key) for _ in range(40)]
        sockets += [connect_dealer(context, town.addresses["a"]) for _ in range(40)]
        assert peer._guard is not None
        wait_until(lambda: peer._guard.refused >= 80)
        with town.session() as session:
            session.run(None, {"x0": IMAGE})
        assert not any(socket.poll(0) for socket in sockets)
        for socket in sockets:
            socket.close(0)
        assert len([line for line in caplog.text.splitlines() if "refused" in line]) < 10
    assert len(list(Path("/proc/self/fd").iterdir())) <= files


# ---------------------------------------------------------------------- key files


def test_key_files(town: Town) -> None:
    home = town.home("a")
    pair = read_pair(home)
    assert pair.public == read_public(home / "peer.key")
    assert pair.secret not in repr(pair)
    secret = home / "peer.key_secret"
    secret.chmod(0o640)
    with pytest.raises(KeysError, match=r"peer.key_secret can be read by others; run `chmod 600 "):
        read_pair(home)
    secret.chmod(0o600)
    text = secret.read_text()
    secret.write_text(text.replace(pair.public, read_public(town.home("b") / "peer.key")))
    with pytest.raises(KeysError, match="holds no pair of keys that belong together"):
        read_pair(home)
    for damaged in ("", "public-key = 'short'", text[: len(text) // 2], text.replace(pair.secret, "~" * 40)):
        secret.write_text(damaged)
        with pytest.raises(KeysError):
            read_pair(home)
    secret.unlink()
    with pytest.raises(
        KeysError, match=r"no key: .*peer.key_secret: No such file or directory; run `fab dep"
    ):
        read_pair(home)


def peer_command(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "distredge", "peer", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


def test_beyond_loopback_a_peer_needs_keys(town: Town) -> None:
    code, error = peer_command("--bind", "0.0.0.0:0")
    assert code == 2
    assert error.startswith("distredge: error: tcp://0.0.0.0:0 can be reached from the network, and no keys")
    assert error.count("\n") == 1
    (town.home("a") / "peer.key_secret").chmod(0o644)
    code, error = peer_command("--bind", "127.0.0.1:0", "--keys", str(town.home("a")))
    assert (code, error.count("\n")) == (2, 1)
    assert "can be read by others" in error
    shutil.rmtree(town.home("b") / "allowed")
    code, error = peer_command("--bind", "127.0.0.1:0", "--keys", str(town.home("b")))
    assert (code, error.count("\n")) == (2, 1)
    assert "no keys of others" in error


def test_a_requester_without_keys(town: Town, tmp_path: Path) -> None:
    hosts = tmp_path / "far.ini"
    hosts.write_text("[requester]\nkeys = controller\n[provider:far]\naddress = 192.0.2.1\n")
    with pytest.raises(
        KeysError, match=r"far.ini: no key of far, .* run `fab deploy`, or set `encryption = o"
    ):
        InferenceSession(chain(), hosts=load_hosts(hosts), cache_dir=town.cache)
    shutil.copy(town.home("a") / "peer.key", town.home("controller") / "hosts" / "far.key")
    (town.home("controller") / "controller.key_secret").unlink()
    with pytest.raises(KeysError, match=r"no key: .*controller.key_secret"):
        InferenceSession(chain(), hosts=load_hosts(hosts), cache_dir=town.cache)
