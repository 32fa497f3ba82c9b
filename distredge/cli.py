"""The `distredge` command: finds the subcommand, prints errors as one line, chooses the exit code.

Each subcommand is one module of `distredge.commands` with `add_parser(subparsers)` and
`run(args) -> int`. These modules import what they need inside `run`, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from distredge import __version__, commands
from distredge.errors import DistrEdgeError

INTERRUPTED = 128 + signal.SIGINT


class Parser(argparse.ArgumentParser):
    """argparse, but an error is one line, as everywhere else."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with one line, and where to read more."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; none of what they need is imported yet."""
    parser = Parser(
        prog="distredge",
        description="Run one CNN on several unequal devices by splitting the rows of its feature maps.",
    )
    parser.add_argument("--version", action="version", version=f"distredge {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in pkgutil.iter_modules(commands.__path__):
        command = import_module(f"distredge.commands.{module.name}")
        if hasattr(command, "add_parser"):
            command.add_parser(subparsers).set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code: what the command returns, 2 for bad input, 130 after Ctrl-C.
    """
    try:
        args = build_parser().parse_args(argv)
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except DistrEdgeError as error:
        print(f"distredge: error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except MemoryError as error:
        print(f"distredge: error: out of memory; give smaller inputs {one_line(error)}", file=sys.stderr)
        return DistrEdgeError.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone. Nothing may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def one_line(error: BaseException) -> str:
    """The message without line breaks: libraries' own messages, quoted in ours, often have some."""
    return " ".join(str(error).split())
