"""CURVE keys: who makes them, where they stay, and who may see which. `distredge.runtime.keys` reads them.

Each host makes its own pair, and so does the controller. Only public keys travel; every host gets all of
them, and takes messages from nobody else; commands from the controller alone, whose key is called
`requester` there. Files are ZeroMQ's certificates (`zmq.auth`).

    on a host       DEPLOY_DIR/keys/peer.key_secret (mode 600)  peer.key  allowed/NAME.key ...
    on a controller CONFIG/clusters/ID/controller.key_secret (600)  controller.key  hosts/NAME.key ...
"""

from __future__ import annotations

import contextlib
import os

import zmq.auth

from distredge.cluster.hosts import Cluster
from distredge.cluster.keys import CONTROLLER, keys_dir
from distredge.files import written_whole

# Runs in a host's own environment, which has pyzmq; prints the public certificate.
MAKE_KEYS = """
import json, os, sys, zmq.auth
folder = os.path.join(os.path.expanduser(sys.argv[1]), "keys")
os.umask(0o077)
os.makedirs(folder, exist_ok=True)
if not os.path.exists(os.path.join(folder, "peer.key_secret")):
    zmq.auth.create_certificates(folder, "peer")
with open(os.path.join(folder, "peer.key")) as file:
    print(json.dumps(file.read()))
"""


def controller_key(cluster: Cluster) -> str:
    """The controller's public certificate; the pair is made when first asked for."""
    folder = keys_dir(cluster)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret = folder / f"{CONTROLLER}.key_secret"
    if not secret.exists():
        before = os.umask(0o077)
        try:
            zmq.auth.create_certificates(folder, CONTROLLER)
        finally:
            os.umask(before)
    return (folder / f"{CONTROLLER}.key").read_text()


def known_keys(cluster: Cluster) -> dict[str, str]:
    """Public certificates of the cluster's hosts from earlier deployments, by provider."""
    folder = keys_dir(cluster) / "hosts"
    files = {provider.name: folder / f"{provider.name}.key" for provider in cluster.providers}
    return {name: file.read_text() for name, file in files.items() if file.exists()}


def remember_key(cluster: Cluster, host: str, certificate: str) -> None:
    """Keeps a host's public certificate."""
    folder = keys_dir(cluster) / "hosts"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with written_whole(folder / f"{host}.key") as part:  # other hosts' threads read it meanwhile
        part.write_text(certificate)


def forget_key(cluster: Cluster, host: str) -> None:
    """Removes a host's certificate; with the last one, the controller's pair goes, too."""
    folder = keys_dir(cluster)
    (folder / "hosts" / f"{host}.key").unlink(missing_ok=True)
    if known_keys(cluster):
        return
    for end in ("key", "key_secret"):
        (folder / f"{CONTROLLER}.{end}").unlink(missing_ok=True)
    # the folder may be one that the user named, with other things in it or above it
    with contextlib.suppress(OSError):
        (folder / "hosts").rmdir()
        folder.rmdir()
        if cluster.requester.keys is None:
            folder.parent.rmdir()
            folder.parent.parent.rmdir()
