"""Sections of docs/benchmarks.md that commands make; all else in the file is written by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def write_section(name: str, made_by: str, text: str, document: Path = DOCUMENT) -> None:
    """Puts Markdown between the marks of a section; a new section comes last.

    Args:
        name: of the section.
        made_by: the command.
        text: what comes between the marks.
        document: the file.
    """
    begin, end = f"<!-- {name}: made by `{made_by}` -->", f"<!-- {name} ends -->"
    whole = document.read_text()
    if begin not in whole:
        whole = f"{whole.rstrip()}\n\n{begin}\n{end}\n"
    before, _, rest = whole.partition(begin)
    _, _, behind = rest.partition(end)
    document.write_text(f"{before}{begin}\n{text.strip()}\n{end}{behind}")


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    marks = ["---", *["--:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, marks, *lines))
