"""`distredge peer`: one provider process."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from distredge.commands.options import non_negative, positive

OPEN_FILES = 4096


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "peer",
        help="compute for whoever connects",
        description="Run one provider process: it waits for a model and a plan, and computes its rows. "
        "Prints one line, `ready NAME ADDRESS`, when it listens.",
    )
    parser.add_argument(
        "--bind", required=True, metavar="ADDRESS", help="tcp://127.0.0.1:9100; port 0 for any that is free"
    )
    parser.add_argument(
        "--name", type=_name, default="", help="what it calls itself (default: host and port)"
    )
    parser.add_argument(
        "--threads", type=non_negative, default=0, help="threads of the inference engine (default: all cores)"
    )
    parser.add_argument(
        "--execution-provider",
        action="append",
        metavar="EP",
        help="onnxruntime's name of what computes; repeat in order of preference "
        "(default: CPUExecutionProvider)",
    )
    parser.add_argument("--cache-dir", type=Path, metavar="DIR", help="where models are kept")
    parser.add_argument(
        "--duty-cycle", type=_share, default=1.0, metavar="S", help="compute only this share of the time"
    )
    parser.add_argument(
        "--exit-with-parent", type=positive, metavar="PID", help="end when this parent does, or stdin closes"
    )
    protection = parser.add_mutually_exclusive_group()
    protection.add_argument(
        "--keys",
        type=Path,
        metavar="DIR",
        help="folder of keys: take encrypted connections only, from holders of the cluster's keys",
    )
    protection.add_argument(
        "--plain", action="store_true", help="no encryption, beyond this machine too: for networks you trust"
    )
    parser.add_argument("--verbose", action="store_true", help="log rejected messages too")
    return parser


def run(args: argparse.Namespace) -> int:
    from distredge.runtime.lifeline import Lifeline

    if args.exit_with_parent is not None:
        # Before anything slow is imported: the parent may end at any moment.
        Lifeline(args.exit_with_parent)
        # A terminal's Ctrl-C reaches the parent too, which ends this process in its own time.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _exit)
    _limit_open_files()
    # While a plan is prepared in one thread, the others must not wait 5 ms for each of their turns.
    sys.setswitchinterval(5e-4)
    from distredge.errors import KeysError
    from distredge.graph.importer import default_cache_dir
    from distredge.runtime.peer import Peer, PeerSettings
    from distredge.runtime.transport import is_loopback, tcp_address

    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.WARNING, format="%(levelname)s %(message)s"
    )
    engines = tuple(args.execution_provider or ("CPUExecutionProvider",))
    _check_engines(engines)
    cache_dir = args.cache_dir or default_cache_dir()
    _check_cache(cache_dir)
    bind = tcp_address(args.bind)
    if args.keys is None and not args.plain and not is_loopback(bind):
        raise KeysError(
            f"{bind} can be reached from the network, and no keys were given; `fab deploy` makes keys and "
            "`fab start` uses them; or name them with --keys, or do without encryption: --plain"
        )
    settings = PeerSettings(
        bind=bind,
        name=args.name,
        threads=args.threads,
        execution_providers=engines,
        cache_dir=cache_dir,
        duty_cycle=args.duty_cycle,
        parent=args.exit_with_parent,
        pipe=None if args.exit_with_parent is None else sys.stdin.fileno(),
        keys=args.keys,
    )
    peer = Peer(settings)
    # No exception here: in a callback of a library it would be lost.
    signal.signal(signal.SIGTERM, lambda signum, frame: peer.stop())
    try:
        if args.keys is None and not is_loopback(peer.address):
            logging.warning("%s is reachable from the network, without encryption", peer.address)
        print(f"ready {peer.name} {peer.address}", flush=True)
        peer.serve()
    finally:
        peer.close()
    return 0


def _limit_open_files() -> None:
    """Room for many connections, but not for as many as a flood can make: each costs memory."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _exit(signum: int, frame: object) -> NoReturn:
    raise SystemExit(0)


def _check_engines(names: tuple[str, ...]) -> None:
    import onnxruntime

    from distredge.errors import DistrEdgeError

    known = onnxruntime.get_available_providers()
    for name in names:
        if name not in known:
            raise DistrEdgeError(f"onnxruntime has no {name!r} here; it has {', '.join(known)}", name=name)


def _check_cache(folder: Path) -> None:
    """Now, while somebody reads what it prints, and not when the first model comes."""
    from distredge.errors import CacheError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CacheError(
            f"models cannot be kept in {folder}: {error.strerror or error}; give another --cache-dir"
        ) from None


def _name(text: str) -> str:
    if not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} has characters that cannot be printed on one line")
    return text


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0.01 <= share <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no share; give a number from 0.01 to 1")
    return share
