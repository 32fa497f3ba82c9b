"""`distredge top`: what a running session does, in the terminal."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from itertools import count
from typing import Any

from distredge.commands.options import positive, seconds

CLEAR = "\x1b[H\x1b[J"


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "top",
        help="watch a running session in the terminal",
        description="Show the devices and links of a session with their load, images a second, latency, the "
        "plan in use, its changes, and losses as they happen. The session must serve a view: "
        "`distredge run --view`, `distredge serve`, or InferenceSession(view=...). Ends with the session, or "
        "with Ctrl-C.",
    )
    parser.add_argument(
        "address",
        nargs="?",
        default="127.0.0.1:8080",
        metavar="ADDRESS",
        help="of the view, or of a server (default: 127.0.0.1:8080)",
    )
    parser.add_argument(
        "--every", type=seconds, default=1.0, metavar="S", help="seconds between looks (default: 1)"
    )
    parser.add_argument("--count", type=positive, metavar="N", help="looks in all (default: until it ends)")
    parser.add_argument("--json", action="store_true", help="one JSON object a look on stdout")
    return parser


def run(args: argparse.Namespace) -> int:
    from distredge.view.reader import find_view, read
    from distredge.view.snapshot import from_json
    from distredge.view.terminal import render

    url = find_view(args.address)
    is_terminal = sys.stdout.isatty() and not args.json
    for look in count(1):
        try:
            text = read(url)
        except OSError:
            print(f"{args.address} does not answer any more: the session has ended", file=sys.stderr)
            return 0
        if args.json:
            print(text.decode().strip(), flush=True)
        else:
            shown = render(from_json(text), shutil.get_terminal_size().columns, colours=is_terminal)
            print(f"{CLEAR if is_terminal else ''}{shown}", flush=True)
        if look == args.count:
            break
        time.sleep(args.every)
    return 0
