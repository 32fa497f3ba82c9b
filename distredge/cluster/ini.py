"""A strict INI file: every complaint is one line that names file, line, section and key.

`configparser` does the parsing, but forgets where things stood; a second scan keeps the line numbers.
"""

from __future__ import annotations

import configparser
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from distredge.errors import HostsError

_COMMENTS = ("#", ";")


@dataclass(frozen=True, slots=True)
class Section:
    """One section of a file, with typed access to its values.

    Attributes:
        file: the path as the user gave it.
        name: what stands between the brackets.
        line: of the header.
        values: key -> text.
        lines: key -> line number.
    """

    file: str
    name: str
    line: int
    values: Mapping[str, str]
    lines: Mapping[str, int]

    def fail(self, key: str, problem: str) -> NoReturn:
        """Raises HostsError for this key; an empty key blames the section itself."""
        line = self.lines.get(key, self.line)
        where = f"{self.file}:{line}: [{self.name}]" + (f" {key}" if key else "")
        raise HostsError(f"{where}: {problem}", file=self.file, line=line, section=self.name, key=key)

    def allow(self, known: Iterable[str]) -> None:
        """Refuses every key that is not in `known`."""
        keys = list(known)
        for key in self.values:
            if key not in keys:
                self.fail(key, f"unknown key; {_suggestion(key, keys)}")

    def text(self, key: str) -> str | None:
        """The value, or None if the key is absent. A key without a value is refused."""
        value = self.values.get(key)
        if value == "":
            self.fail(key, "has no value; give one or remove the line")
        return value

    def integer(self, key: str, at_least: int, at_most: int | None = None) -> int | None:
        """A whole number in range, or None if the key is absent."""
        value = self.text(key)
        if value is None:
            return None
        limits = f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
        try:
            number = int(value)
        except ValueError:
            self.fail(key, f"{clip(value)} is not a whole number; give one {limits}")
        if number < at_least or (at_most is not None and number > at_most):
            self.fail(key, f"{clip(value)} is out of range; give a whole number {limits}")
        return number

    def number(self, key: str, unit: str, *, zero: bool = False) -> float | None:
        """A positive (with `zero`: non-negative) finite number, or None if the key is absent."""
        value = self.text(key)
        if value is None:
            return None
        limit = "of at least 0" if zero else "above 0"
        try:
            number = float(value)
        except ValueError:
            self.fail(key, f"{clip(value)} is not a number; give {unit}, {limit}")
        if not math.isfinite(number):
            self.fail(key, f"{clip(value)} is not finite; give {unit}, {limit}, or remove the line")
        if number < 0 or (number == 0 and not zero):
            sign = "negative" if number < 0 else "zero"
            self.fail(key, f"{clip(value)} is {sign}; give {unit}, {limit}")
        return number


def clip(text: str, limit: int = 60) -> str:
    """The text in quotes, on one line, shortened: fit for an error message."""
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


def read_ini(path: str | Path) -> list[Section]:
    """The sections of a file, in order.

    Comments start with `#` or `;`, on a line of their own or behind a blank. Values stay on one line.

    Raises:
        HostsError: the file cannot be read, or a line is not a section, `key = value` or a comment, or
            a section or key comes twice.
    """
    file = str(path)
    text = _read(file)
    lines, headers = _scan(file, text)
    parser = configparser.ConfigParser(
        interpolation=None,
        delimiters=("=",),
        comment_prefixes=_COMMENTS,
        inline_comment_prefixes=_COMMENTS,
        default_section="\0",
        empty_lines_in_values=False,
    )
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        parser.read_string(text, source=file)
    except configparser.DuplicateSectionError as error:
        first = headers[error.section]
        _refuse(file, error.lineno, f"[{error.section}]: this section comes twice (first in line {first}); "
                "give it another name or join the two", section=error.section)  # fmt: skip
    except configparser.DuplicateOptionError as error:
        first = lines[error.section, error.option]
        _refuse(file, error.lineno, f"[{error.section}] {error.option}: this key comes twice (first in line "
                f"{first}); remove one", section=error.section, key=error.option)  # fmt: skip
    except configparser.MissingSectionHeaderError as error:
        _refuse(file, error.lineno, f"{clip(error.line.strip())} stands in front of the first section; "
                "put a header such as [requester] above it")  # fmt: skip
    except configparser.ParsingError as error:
        line = error.errors[0][0]
        content = text.split("\n")[line - 1].strip()
        _refuse(
            file, line, f"{clip(content)} is neither a section nor a comment nor 'key = value'; correct it"
        )
    sections = []
    for name in parser.sections():
        values = dict(parser.items(name))
        at = {key: lines[name, key] for key in values}
        sections.append(Section(file, name, headers[name], values, at))
    return sections


def _read(file: str) -> str:
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise HostsError(f"{file}: cannot be read: {reason}; check the path", file=file) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        _refuse(file, line, "is not UTF-8 text; save the file as UTF-8")


def _scan(file: str, text: str) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    """Lines of keys and of section headers, and a refusal of what configparser would swallow in silence:
    an indented line, which it appends to the value above."""
    lines: dict[tuple[str, str], int] = {}
    headers: dict[str, int] = {}
    section, indent, in_value = "", 0, False
    for number, raw in enumerate(text.split("\n"), 1):
        content = _without_comment(raw).strip()
        if not content:
            in_value = False
            continue
        depth = len(raw) - len(raw.lstrip())
        if in_value and depth > indent:
            _refuse(file, number, f"[{section}]: {clip(content)} is indented, so it would continue the line "
                    "above; remove the blanks in front of it", section=section)  # fmt: skip
        indent = depth
        if content.startswith("["):
            if not content.endswith("]") or len(content) < 3:
                _refuse(
                    file, number, f"{clip(content)} is not a section header; write [name] alone on its line"
                )
            section, in_value = content[1:-1], False
            headers.setdefault(section, number)
        else:
            lines.setdefault((section, content.partition("=")[0].rstrip()), number)
            in_value = True
    return lines, headers


def _without_comment(line: str) -> str:
    at = [i for i, c in enumerate(line) if c in _COMMENTS and (i == 0 or line[i - 1].isspace())]
    return line[: at[0]] if at else line


def _refuse(file: str, line: int | None, problem: str, **context: object) -> NoReturn:
    raise HostsError(f"{file}:{line}: {problem}", file=file, line=line, **context) from None


def _suggestion(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word.lower(), known, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"the keys here are {', '.join(known)}"
