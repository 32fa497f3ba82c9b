"""`python -m launch.testbed up|down|set|status|exec`: a testbed from the command line."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from distredge.errors import DistrEdgeError, TestbedError
from launch.testbed.bed import Testbed
from launch.testbed.config import TestbedConfig, load_testbed
from launch.testbed.measure import report

DEFAULT_FILE = "testbed.ini"


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code; a mistake of the user's is one line and 2."""
    options = _parser().parse_args(argv)
    try:
        return int(options.run(options) or 0)
    except DistrEdgeError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launch.testbed",
        description="Real hosts on this machine, each with its network, files and CPU share. Needs root.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, help_text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help_text, description=help_text)
        added.set_defaults(run=run)
        return added

    for name, run, help_text in (
        ("up", _up, "make the hosts of a testbed file"),
        ("down", _down, "remove every trace of them, also after a crash"),
        ("status", _status, "show the running hosts"),
        ("measure", _measure, "measure whether links and CPU shares are as the file says"),
    ):
        added = command(name, run, help_text)
        added.add_argument(
            "file", nargs="?", default=DEFAULT_FILE, help=f"testbed file (default: {DEFAULT_FILE})"
        )
        if name == "down":
            added.add_argument(
                "--all", action="store_true", help="every testbed on this machine; reads no file"
            )
        if name == "status":
            added.add_argument("--json", action="store_true", help="print JSON")
    changing = command("set", _set, "change a running host: set [FILE] HOST link_mbps=20 cpu=0.1")
    changing.add_argument("words", nargs="+", metavar="[FILE] HOST KEY=VALUE")
    running = command("exec", _exec, "run a program on a host: exec [FILE] HOST -- program argument ...")
    running.add_argument("words", nargs="+", metavar="[FILE] HOST -- PROGRAM")
    return parser


def _up(options: argparse.Namespace) -> None:
    config = load_testbed(options.file)
    began = time.monotonic()
    bed = Testbed(config)
    bed.up()
    print(f"{_listed(config)}: up in {time.monotonic() - began:.1f} s")
    if config.ssh:
        print(f"hosts file: {bed.hosts_file}")


def _down(options: argparse.Namespace) -> None:
    if not options.all:
        config = load_testbed(options.file)
        Testbed(config).down()
        print(f"{_listed(config)}: down")
        return
    names = Testbed.existing()
    for name in names:
        Testbed(TestbedConfig(name, ())).down()
    print(f"down: {', '.join(names) or 'nothing was up'}")


def _status(options: argparse.Namespace) -> None:
    rows = Testbed.load(load_testbed(options.file).name).status()
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    line = "{:<16} {:<15} {:>6} {:>10} {:>11} {:>9} {:>9}"
    print(line.format("host", "address", "cpu", "up Mbit/s", "down Mbit/s", "delay ms", "processes"))
    for row in rows:
        cpu, up, down = (
            "-" if row[key] is None else f"{row[key]:g}" for key in ("cpu", "uplink_mbps", "downlink_mbps")
        )
        count = row.get("processes", "-")
        print(line.format(row["name"], row["address"], cpu, up, down, f"{row['delay_ms']:g}", count))


def _measure(options: argparse.Namespace) -> None:
    for line in report(Testbed.load(load_testbed(options.file).name)):
        print(line, flush=True)


def _set(options: argparse.Namespace) -> None:
    bed, words = _file_first(options.words)
    if len(words) < 2:
        raise TestbedError("set needs a host and at least one KEY=VALUE; keys are link_mbps, uplink_mbps, "
                           "downlink_mbps, cpu")  # fmt: skip
    host, changes = words[0], {}
    for word in words[1:]:
        key, _, value = word.partition("=")
        if key not in ("link_mbps", "uplink_mbps", "downlink_mbps", "cpu"):
            raise TestbedError(f"{word!r}: unknown key; keys are link_mbps, uplink_mbps, downlink_mbps, cpu")
        try:
            changes[key] = float(value)
        except ValueError:
            raise TestbedError(f"{word!r}: {value!r} is not a number; write {key}=20") from None
    bed.set(host, **changes)
    print(f"{host}: {', '.join(words[1:])}")


def _exec(options: argparse.Namespace) -> int:
    bed, words = _file_first(options.words)
    if len(words) < 2:
        raise TestbedError("exec needs a host and a program")
    process = bed.run(words[0], words[1:])
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        return 130
    except subprocess.SubprocessError:
        process.kill()
        raise


def _file_first(words: list[str]) -> tuple[Testbed, list[str]]:
    """The running testbed of the file that may come first, and the other words."""
    file, rest = DEFAULT_FILE, words
    if words[0].endswith(".ini") or Path(words[0]).is_file():
        file, rest = words[0], words[1:]
    return Testbed.load(load_testbed(file).name), rest


def _listed(config: TestbedConfig) -> str:
    hosts = ", ".join(f"{host.name} ({config.address(host.name)})" for host in config.hosts)
    return f"testbed {config.name}: {hosts}"


if __name__ == "__main__":
    sys.exit(main())
