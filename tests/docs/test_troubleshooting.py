"""docs/troubleshooting.md has every error message of the product, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs import messages
from tests.docs.messages import ROOT, Source, templates_by_file

PAGE = ROOT / "docs" / "troubleshooting.md"
ENTRY = re.compile(r"^- (?:`` (.+?) ``|`([^`]+)`)", re.MULTILINE)


def documented() -> list[str]:
    return [double or single for double, single in ENTRY.findall(PAGE.read_text())]


def test_every_message_is_on_the_page() -> None:
    entries = set(documented())
    missing = {
        path: lacking
        for path, found in templates_by_file().items()
        if (lacking := [text for text in found if text not in entries])
    }
    assert not missing, f"write these into {PAGE.name}, each as an item of its own: {missing}"


def test_the_page_has_no_message_that_is_gone() -> None:
    known = {text for found in templates_by_file().values() for text in found}
    entries = documented()
    assert set(entries) <= known, f"remove these from {PAGE.name}: {set(entries) - known}"
    assert len(entries) == len(set(entries))
    assert len(entries) > 300


SAMPLE = """
class OwnError(DistrEdgeError): ...
def fail(key, problem): raise OwnError(f"{key}: {problem}")
def one(x): raise OwnError("a plain message of ours")
def two(x): raise OwnError(f"a message about {x!r} and "
                           f"{x} more of it")
def three(x):
    text = "what a variable says" if x else f"or says {x} otherwise"
    raise OwnError(text)
def four(x): fail(x, "handed to a helper that raises")
def five(x): return Loss(x, f"lost because of {x} alone")
def six(x): raise ValueError("no message of the product")
"""


def test_a_new_message_is_found_wherever_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "distredge").mkdir()
    (tmp_path / "distredge" / "new.py").write_text(SAMPLE)
    monkeypatch.setattr(messages, "ROOT", tmp_path)
    monkeypatch.setattr(messages, "templates_by_file", templates_by_file.__wrapped__)
    assert isinstance(Source.read(tmp_path / "distredge" / "new.py").tree, ast.Module)
    assert sorted(messages.templates_by_file()["distredge/new.py"]) == [
        "a message about … and … more of it",
        "a plain message of ours",
        "handed to a helper that raises",
        "lost because of … alone",
        "or says … otherwise",
        "what a variable says",
    ]
