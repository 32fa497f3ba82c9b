"""A connection to one host: SSH, strict about host keys, and the agent that answers on the other side."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import socket
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import paramiko
from fabric import Connection

from distredge.cluster.hosts import Provider
from distredge.errors import LaunchError

CONNECT_S = 10
KEEPALIVE_S = 5
SILENCE_S = 600.0
"""How long one request may take: an environment on a slow card."""

PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14", "python3")
_AGENT = ("basics", "facts", "boot", "peers", "store", "agent")
# Makes modules out of what comes on standard input, in order, and calls `main` of the last.
_BOOT = """
import sys, json, types
if sys.version_info < (3, 11):
    print(json.dumps({"old": sys.version.split()[0]}))
    sys.exit(3)
for name, source in json.loads(sys.stdin.buffer.read(int(sys.argv[1]))):
    module = types.ModuleType(name)
    module.__path__ = []
    sys.modules[name] = module
    exec(compile(source, name, "exec"), module.__dict__)
print("{}", flush=True)
module.main()
"""


class HostSession:
    """An agent on a host, for as long as this is open. Requests are answered in order.

    Args:
        provider: whose host; its SSH settings are used.

    Raises:
        LaunchError: what is wrong with the host, in words; on opening and on every request.
    """

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.folder = provider.deploy_dir
        self.python = ""
        self._connection = connection_to(provider)
        self._channel: paramiko.Channel | None = None
        self._answers: Any = None

    def __enter__(self) -> HostSession:
        try:
            open_connection(self._connection, self.provider)
            found = start_program(self._connection, self.provider, _AGENT, [])
            self.python, self._channel, self._answers = found
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, action: str, **arguments: Any) -> Any:
        """Lets the agent do something in the deploy folder; the answer is whatever JSON can say."""
        self._send(json.dumps({"do": action, "folder": self.folder, **arguments}).encode() + b"\n")
        return self._receive()

    def ask_plain(self, action: str, **arguments: Any) -> Any:
        """As `ask`, for what has nothing to do with the deploy folder."""
        self._send(json.dumps({"do": action, **arguments}).encode() + b"\n")
        return self._receive()

    def put(self, file: Path, digest: str, shelf: str = "") -> None:
        """Sends a file, for `wheels/` or for a shelf of its own."""
        size = file.stat().st_size
        request: dict[str, object] = {"do": "put", "folder": self.folder, "name": file.name, "digest": digest}
        request |= {"size": size, "shelf": shelf}
        self._send(json.dumps(request).encode() + b"\n")
        with file.open("rb") as source:
            while data := source.read(1 << 18):
                self._send(data)
        self._receive()

    def close(self) -> None:
        """Ends agent and connection; the agent's lock is free when the host has noticed."""
        if self._channel is not None:
            with contextlib.suppress(Exception):
                self._channel.shutdown_write()
                self._channel.recv_exit_status() if self._channel.status_event.wait(2.0) else None
                self._channel.close()
        self._connection.close()

    def _send(self, data: bytes) -> None:
        assert self._channel is not None
        try:
            self._channel.sendall(data)
        except OSError as error:
            raise LaunchError(f"lost the connection: {error or 'closed'}") from None

    def _receive(self) -> Any:
        assert self._channel is not None
        try:
            line = self._answers.readline()
        except (OSError, EOFError) as error:
            raise LaunchError(f"lost the connection: {error or 'no answer'}") from None
        if not line:
            said = self._channel.makefile_stderr("rb").read().decode(errors="replace").strip()
            raise LaunchError(
                f"the agent ended: {said.splitlines()[-1] if said else 'the connection closed'}"
            )
        reply = json.loads(line)
        if "error" in reply:
            raise LaunchError(reply["error"])
        return reply["answer"]


def connection_to(provider: Provider) -> Connection:
    """A connection that is not open yet. Only hosts whose key is known are trusted."""
    settings: dict[str, Any] = {}
    if provider.identity_file:
        settings = {"key_filename": provider.identity_file, "allow_agent": False, "look_for_keys": False}
    connection = Connection(
        provider.address,
        provider.ssh_user,
        provider.ssh_port,
        connect_timeout=CONNECT_S,
        connect_kwargs=settings,
    )
    connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    if provider.known_hosts:
        connection.client.load_host_keys(provider.known_hosts)
    else:
        connection.client.load_system_host_keys()
    return connection


def open_connection(connection: Connection, provider: Provider) -> None:
    """Logs in.

    Raises:
        LaunchError: what is in the way, and what to do.
    """
    place = f"{provider.address}:{provider.ssh_port}"
    known = provider.known_hosts or "~/.ssh/known_hosts"
    try:
        connection.open()
        connection.transport.set_keepalive(KEEPALIVE_S)
    except paramiko.BadHostKeyException:
        raise LaunchError(
            f"another key than the one in {known}; find out why before you change that file"
        ) from None
    except paramiko.AuthenticationException:
        user = connection.user
        raise LaunchError(f"refuses our key for {user}; check ssh_user and identity_file") from None
    except (socket.gaierror, UnicodeError):
        raise LaunchError(f"unreachable: no such host name {provider.address}; check the address") from None
    except paramiko.ssh_exception.NoValidConnectionsError:
        raise LaunchError(f"unreachable: nothing listens on {place}; is its SSH server running?") from None
    except TimeoutError:
        raise LaunchError(
            f"unreachable: {place} did not answer within {CONNECT_S} s; check address and network"
        ) from None
    except paramiko.SSHException as error:
        if "not found in known_hosts" in str(error):
            remedy = (
                f"compare its key, then: ssh-keyscan -p {provider.ssh_port} {provider.address} >> {known}"
            )
            raise LaunchError(f"unknown host key; {remedy}") from None
        raise LaunchError(f"no SSH session: {error}") from None
    except OSError as error:
        raise LaunchError(
            f"unreachable: {place}: {error.strerror or error}; check address and network"
        ) from None


def start_program(
    connection: Connection, provider: Provider, modules: Sequence[str], arguments: Sequence[str]
) -> tuple[str, paramiko.Channel, BinaryIO]:
    """Starts a program for hosts with the first Python there that is new enough.

    Args:
        connection: open.
        provider: names the interpreter, or leaves it to us to look for one.
        modules: of `launch.remote`, in the order of their imports; the last one's `main` is called.
        arguments: for `sys.argv[2:]`.

    Returns:
        The interpreter, the channel, and what the program prints.

    Raises:
        LaunchError: there is no such Python.
    """
    sources = [("launch", ""), ("launch.remote", "")]
    sources += [(f"launch.remote.{name}", program(f"{name}.py")) for name in modules]
    sent = json.dumps(sources).encode()
    candidates = (provider.python,) if provider.python else PYTHONS
    too_old = ""
    for python in candidates:
        channel = connection.transport.open_session()
        channel.settimeout(SILENCE_S)
        channel.exec_command(shlex.join([python, "-I", "-u", "-c", _BOOT, str(len(sent)), *arguments]))
        printed = channel.makefile("rb")
        with contextlib.suppress(OSError):
            channel.sendall(sent)
        reply = json.loads(printed.readline() or "null")
        if reply == {}:
            return python, channel, printed
        if reply is not None:
            too_old = f"{python} is {reply['old']}; "
        channel.close()
    looked = f"{too_old}looked for {', '.join(candidates)}"
    raise LaunchError(f"no Python 3.11 or newer ({looked}); install one, or set python = /path/to/it")


def program(name: str) -> str:
    """The source of a program for hosts."""
    return (resources.files("launch.remote") / name).read_text()


def sha256(file: Path) -> str:
    """Of a file's content."""
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
