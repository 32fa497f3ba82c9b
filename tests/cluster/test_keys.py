"""Which connections are encrypted, and where the keys for them lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from distredge.cluster.hosts import Cluster, Provider, Requester
from distredge.cluster.keys import is_encrypted, key_file, keys_dir, with_keys_named

HERE, FAR = Provider("here", "127.0.0.1"), Provider("far", "10.0.0.2", slots=2, ports=(1, 2))


def cluster(*providers: Provider, encryption: str = "auto", keys: str | None = None) -> Cluster:
    return Cluster("c", Requester(keys=keys), providers, None, "/somewhere/c.ini", encryption)


def test_what_leaves_loopback_is_encrypted() -> None:
    for encryption, expected in (("auto", [False, True, True]), ("on", [True] * 3), ("off", [False] * 3)):
        both = cluster(HERE, FAR, encryption=encryption)
        assert [is_encrypted(both, device) for device in both.devices] == expected


def test_the_folder_of_keys(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    usual = keys_dir(cluster(FAR))
    assert usual.parent == tmp_path / "distredge" / "clusters"
    assert keys_dir(replace(cluster(FAR), path="/elsewhere/c.ini")) != usual
    assert keys_dir(cluster(FAR, keys="/k")) == Path("/k")
    assert with_keys_named(cluster(HERE)) == cluster(HERE)
    written = replace(with_keys_named(cluster(FAR)), path="/elsewhere/measured.ini")
    assert keys_dir(written) == usual


def test_slots_share_their_providers_key(tmp_path: Path) -> None:
    (tmp_path / "hosts").mkdir()
    for name in ("far", "here"):
        (tmp_path / "hosts" / f"{name}.key").touch()
    both = cluster(HERE, FAR, keys=str(tmp_path))
    assert [key_file(both, device).name for device in both.devices] == ["here.key", "far.key", "far.key"]
