"""Progress on a terminal, and nowhere else."""

from __future__ import annotations

import io
import sys

import pytest

from distredge.commands import progress as module
from distredge.commands.progress import progress


class Terminal(io.StringIO):
    """What a terminal is sent."""

    def isatty(self) -> bool:
        return True


def test_a_line_that_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress() as show:
        show("sending", 10, 12)
        show("ready", 1, 2)
    # every carriage return starts anew over what was there, and the last leaves an empty line
    assert sys.stderr.getvalue() == f"\rsending: 10 of 12\r{'ready: 1 of 2':<17}\r{'':<13}\r"


def test_no_more_often_than_it_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 1000.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress() as show:
        for done in range(1000):
            show("frames", done, 1000)
    assert sys.stderr.getvalue().count("frames") == 1


def test_nothing_with_json_or_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress() as show:
        show("frames", 1, 2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress(quiet=True) as show:
        show("frames", 1, 2)
    assert sys.stderr.getvalue() == ""
