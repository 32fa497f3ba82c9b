"""Calling the system's own tools, and whether they are here."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable

from distredge.errors import TestbedError

# sbin is on root's path, but not on everybody's
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/sbin"])
_PACKAGES = {"ip": "iproute2", "tc": "iproute2", "sshd": "openssh-server", "ssh-keygen": "openssh-client"}


def require_root(purpose: str) -> None:
    """Raises TestbedError unless this process is root."""
    if os.geteuid() != 0:
        raise TestbedError(f"{purpose} needs root (namespaces, links, cgroups); run it with sudo")


def tool(name: str) -> str:
    """The full path of a program.

    Raises:
        TestbedError: it is missing; names the Debian package that brings it.
    """
    path = shutil.which(name, path=_PATH)
    if path is None:
        package = _PACKAGES.get(name, name)
        raise TestbedError(f"the program {name} is missing; install it with: apt-get install {package}")
    return path


def call(*words: object, accept: Iterable[str] = ()) -> str:
    """Runs a program and returns what it printed.

    Args:
        words: program and arguments.
        accept: parts of error messages after which a failure is no failure.

    Raises:
        TestbedError: it failed.
    """
    argv = [str(word) for word in words]
    # close_fds: an orphan of a killed `up` or `down` keeps their lock until it has ended (lock.py)
    done = subprocess.run(
        [tool(argv[0]), *argv[1:]], capture_output=True, text=True, check=False, close_fds=False
    )
    if done.returncode:
        said = " ".join(done.stderr.split())
        if not any(part in said for part in accept):
            raise TestbedError(f"'{' '.join(argv)}' failed: {said or done.returncode}", argv=argv)
    return done.stdout
