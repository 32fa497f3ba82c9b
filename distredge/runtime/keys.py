"""CURVE keys, read from the files that `fab deploy` made. A secret key never leaves the host that made it.

A host has its own in FOLDER/peer.key_secret, and in allowed/NAME.key those of all it may talk to; commands it
takes from the holder of allowed/requester.key. A requester has its own in FOLDER/controller.key_secret, and
its hosts' in hosts/NAME.key.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.auth.certs import load_certificate
from zmq.utils import z85

from distredge.cluster.hosts import Cluster, Provider
from distredge.cluster.keys import CONTROLLER, is_encrypted, key_file, keys_dir
from distredge.errors import KeysError

PEER = "peer"


@dataclass(frozen=True)
class KeyPair:
    """A process's own keys, as 40 characters of Z85 each."""

    public: str
    secret: str = field(repr=False)


def read_pair(folder: Path, name: str = PEER) -> KeyPair:
    """The pair in `FOLDER/NAME.key_secret`.

    Raises:
        KeysError: there is none, others may read it, or it is damaged.
    """
    file = folder / f"{name}.key_secret"
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise KeysError(f"no key: {file}: {error.strerror}; run `fab deploy`, which makes keys") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeysError(f"{file} can be read by others; run `chmod 600 {file}`, or deploy new keys")
    public, secret = _read(file)
    if not secret or zmq.curve_public(secret.encode()).decode() != public:
        raise KeysError(f"{file} holds no pair of keys that belong together; deploy new ones")
    return KeyPair(public, secret)


def read_public(file: Path) -> str:
    """The public key in a certificate.

    Raises:
        KeysError: there is none, or it is damaged.
    """
    return _read(file)[0]


def requester_keys(cluster: Cluster) -> tuple[KeyPair | None, list[str]]:
    """What a requester needs to talk to a cluster's devices.

    Returns:
        Its own pair, or None if no connection is encrypted; and each device's public key, or "" where
        the connection is plain.

    Raises:
        KeysError: keys are needed, and missing or unusable.
    """
    keys = [
        _device_key(cluster, device) if is_encrypted(cluster, device) else "" for device in cluster.devices
    ]
    return (read_pair(keys_dir(cluster), CONTROLLER) if any(keys) else None), keys


def _device_key(cluster: Cluster, device: Provider) -> str:
    file = key_file(cluster, device)
    if not file.is_file():
        where = cluster.path or cluster.name
        text = f"{where}: no key of {device.name}, whose connection is to be encrypted"
        raise KeysError(f"{text}; run `fab deploy`, or set `encryption = off` under [network]")
    return read_public(file)


def _read(file: Path) -> tuple[str, str]:
    try:
        public, secret = load_certificate(file)
        for key in (public, secret):
            if key is not None and (len(key) != 40 or len(z85.decode(key)) != 32):
                raise ValueError
    except OSError as error:
        raise KeysError(f"{file}: cannot be read: {error.strerror or error}") from None
    except Exception:  # z85 raises what it likes
        raise KeysError(f"{file}: is no file of keys; deploy new ones") from None
    return public.decode(), (secret or b"").decode()
