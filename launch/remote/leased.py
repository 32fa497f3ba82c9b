"""Runs one peer for as long as somebody at the other end of standard input says so.

Arguments: the deploy folder, the lease in seconds, NAME=VALUE ..., the peer's address and port, `--`, and
what follows `python -m distredge`, in which `{bind}` and `{folder}` are replaced. Any byte renews the lease;
the end of the input, or silence for as long as the lease, ends the peer. What it prints is passed on.
"""

import contextlib
import os
import selectors
import subprocess
import sys
import time

from launch.remote.basics import current_release, expand, own_places
from launch.remote.facts import bind_address

STOP_S = 5.0


def main():
    words = sys.argv[2:]
    split = words.index("--")
    folder, lease_s, *settings, address, port = words[:split]
    folder, lease_s = expand(folder), float(lease_s)
    if not current_release(folder):
        print("nothing is deployed; run fab deploy", flush=True)
        sys.exit(1)
    bind = bind_address(address)
    bind = f"tcp://[{bind}]:{port}" if ":" in bind else f"tcp://{bind}:{port}"
    arguments = [word.replace("{bind}", bind).replace("{folder}", folder) for word in words[split + 1 :]]
    environment = dict(word.replace("{folder}", folder).split("=", 1) for word in settings)
    peer = subprocess.Popen(
        [
            os.path.join(folder, "current", "bin", "python"),
            *("-I", "-m", "distredge", *arguments, "--exit-with-parent", str(os.getpid())),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **own_places(folder), **environment},
        cwd=folder,
    )
    sys.exit(watch(peer, lease_s))


def watch(peer, lease_s):
    """Passes on what the peer says until it ends or the lease does; its exit code."""
    os.set_blocking(0, False)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(peer.stdout, selectors.EVENT_READ)
    deadline = time.monotonic() + lease_s
    while (left := deadline - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            data = os.read(key.fd, 1 << 16)
            if key.fd != 0 and not data:
                return peer.wait()
            if key.fd != 0:
                write(data)
            elif data:
                deadline = time.monotonic() + lease_s
            else:
                deadline = 0.0
    peer.terminate()
    try:
        return peer.wait(STOP_S)
    except subprocess.TimeoutExpired:
        peer.kill()
        return peer.wait()


def write(data):
    """To standard output, as long as somebody reads it."""
    with contextlib.suppress(OSError):
        os.write(1, data)
