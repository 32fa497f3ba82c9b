"""`distredge serve`: models on peers, for clients of the Open Inference Protocol."""

from __future__ import annotations

import argparse
import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from distredge.commands.options import add_objective, add_wire, non_negative, positive


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "serve",
        help="answer clients of the Open Inference Protocol (KServe v2)",
        description="Serve models over HTTP and gRPC by the Open Inference Protocol, as Triton and KServe "
        "do, so that their clients need no change. Prints `ready`, both addresses, and those of the metrics "
        "and of the live view. There is no authentication: beyond this machine, put a proxy in front.",
    )
    parser.add_argument("models", nargs="+", metavar="[NAME=]MODEL", help="an ONNX file; its name by default")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--peers", type=positive, default=2, help="local peers to start (default: 2)")
    where.add_argument("--hosts", metavar="FILE", help="hosts file whose peers are running")
    parser.add_argument(
        "--policy",
        metavar="P",
        help="who decides (default: proportional; auto for an --objective of streams)",
    )
    add_wire(parser)
    add_objective(parser)
    parser.add_argument("--bind", default="127.0.0.1", metavar="HOST", help="where to listen (127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8000, help="of HTTP; 0 for any (default: 8000)")
    parser.add_argument("--grpc-port", type=_port, default=8001, help="of gRPC; 0 for any (default: 8001)")
    parser.add_argument(
        "--threads", type=non_negative, default=1, help="in each local peer; 0 for all cores (default: 1)"
    )
    parser.add_argument(
        "--in-flight",
        type=positive,
        default=4,
        metavar="W",
        help="frames of a model under way at once; further requests wait (default: 4)",
    )
    parser.add_argument(
        "--limit-mb", type=positive, default=256, metavar="MB", help="of one request (default: 256)"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    from distredge.errors import DistrEdgeError, PortInUseError
    from distredge.runtime.launcher import LocalPeers
    from distredge.runtime.session import InferenceSession

    try:
        import uvicorn

        from distredge.serve.grpc import grpc_server
        from distredge.serve.http import http_app
        from distredge.serve.metrics import Metrics
        from distredge.serve.models import Models
    except ImportError as error:
        raise DistrEdgeError(f"serving needs {error.name}; pip install 'distredge[serve]'") from error
    signal.signal(signal.SIGTERM, _stop)
    files = _named(args.models)
    limit_bytes = args.limit_mb * 1_000_000
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((args.bind, args.port))
        except OSError as error:
            raise PortInUseError(
                f"{args.bind}:{args.port}: {error.strerror}; choose another --port"
            ) from None
        hosts = args.hosts or stack.enter_context(LocalPeers(args.peers, threads=args.threads)).cluster
        sessions = {
            name: stack.enter_context(
                InferenceSession(
                    file, hosts=hosts, policy=args.policy, objective=args.objective, wire=args.wire
                )
            )
            for name, file in files.items()
        }
        models = Models(sessions, Metrics(), args.in_flight)
        try:
            served, grpc_port = grpc_server(models, f"{args.bind}:{args.grpc_port}", limit_bytes=limit_bytes)
        except RuntimeError:
            text = f"{args.bind}:{args.grpc_port} cannot be had; choose another --grpc-port"
            raise PortInUseError(text) from None
        served.start()
        stack.callback(lambda: served.stop(1.0).wait())
        config = uvicorn.Config(
            http_app(models, limit_bytes=limit_bytes), log_level="warning", lifespan="off"
        )
        http = f"http://{args.bind}:{listening.getsockname()[1]}"
        listening.listen()
        also = f"metrics {http}/metrics view {http}/view"
        print(f"ready {http} grpc://{args.bind}:{grpc_port} {also}", flush=True)
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def _stop(*_: object) -> NoReturn:
    raise SystemExit(0)


def _named(models: list[str]) -> dict[str, Path]:
    """Files by name.

    Raises:
        InputError: two have one name.
    """
    from distredge.errors import InputError

    files: dict[str, Path] = {}
    for text in models:
        name, _, file = text.rpartition("=")
        name = name or Path(file).stem
        if name in files:
            raise InputError(f"two models are called {name}; name one with NAME={file}")
        files[name] = Path(file)
    return files


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port; give 0 to 65535")
    return int(text)
