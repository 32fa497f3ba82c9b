"""Bad arguments of `distredge peer`: one clear line and exit code 2, before it listens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def refused(*arguments: str) -> str:
    command = [sys.executable, "-m", "distredge", "peer", "--bind", "tcp://127.0.0.1:0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "ready" not in done.stdout
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("folder", ["/dev/null/models", "/proc/models"])
def test_a_cache_that_cannot_be_written(folder: str) -> None:
    text = refused("--cache-dir", folder)
    assert f"models cannot be kept in {folder}: " in text
    assert text.endswith("; give another --cache-dir")


def test_a_cache_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    assert "models cannot be kept in" in refused("--cache-dir", str(tmp_path / "models"))


def test_the_usual_cache_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTREDGE_CACHE", "/dev/null/x")
    assert "models cannot be kept in /dev/null/x/models: " in refused()


def test_a_name_of_two_lines() -> None:
    assert "cannot be printed on one line" in refused("--name", "a\nready b")
