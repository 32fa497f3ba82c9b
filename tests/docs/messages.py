"""The product's error messages, as templates read from its source: `…` stands for what is put in.

A message is the first argument of an error class; or what is handed to a function that puts it into one
(`section.fail(key, problem)`); or a text that a variable in one of these may have. What a peer says of
itself or of another travels in messages of the protocol (`Failure`, `Loss`), and counts too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("distredge", "policies", "launch")
GAP = "…"
LETTERS = 11
ROOTS = {"DistrEdgeError", "ArgumentTypeError", "Refusal", "Exit"}
"""Our own base, argparse's for options, what an agent on a device refuses, and what ends `fab`."""
CARRIERS = {"Loss": 1, "Failure": 3, "LostNeighbour": 3}
"""Which argument of what is no error becomes part of one."""
RETURNED = {"_explain", "_ending", "_how_it_ended"}
"""Functions whose texts become part of a message."""
INTERNAL = {"distredge/runtime/inprocess.py", "distredge/sim/faults.py"}
"""Checks of the project's own, which no user meets."""


Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Source:
    """One parsed file."""

    path: str
    tree: ast.Module
    functions: dict[ast.AST, Function] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Source:
        source = cls(str(path.relative_to(ROOT)), ast.parse(path.read_text()))
        source._enter(source.tree, None)
        return source

    def _enter(self, node: ast.AST, function: Function | None) -> None:
        if function is not None:
            self.functions[node] = function
        inside = node if isinstance(node, Function) else function
        for child in ast.iter_child_nodes(node):
            self._enter(child, inside)


def sources() -> list[Source]:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [source for source in map(Source.read, files) if source.path not in INTERNAL]


def error_classes(read: list[Source]) -> set[str]:
    """Names of the product's errors."""
    found = set(ROOTS)
    classes = [node for source in read for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]
    while new := {c.name for c in classes if {name_of(base) for base in c.bases} & found} - found:
        found |= new
    return found


def name_of(node: ast.AST) -> str:
    """The last part of a dotted name."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


@cache
def templates_by_file() -> dict[str, list[str]]:
    """All templates, each once, by the file that has them first."""
    read = sources()
    takers = dict.fromkeys(error_classes(read), 0) | CARRIERS
    takers |= helpers(read, takers)
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    for source in read:
        for text in texts(source, takers):
            if text not in seen and says_something(text):
                seen.add(text)
                found.setdefault(source.path, []).append(text)
    return found


def helpers(read: list[Source], takers: dict[str, int]) -> dict[str, int]:
    """Functions that put one of their parameters into a message: which argument that is in a call."""
    found: dict[str, int] = {}
    for source in read:
        for node, function in source.functions.items():
            if not (isinstance(node, ast.Call) and name_of(node.func) in takers):
                continue
            message = argument(node, takers[name_of(node.func)])
            names = [each.arg for each in function.args.args]
            offset = 1 if names[:1] in (["self"], ["cls"]) else 0
            for name in interpolated(message):
                if name in ("problem", "text", "why", "how") and name in names:
                    found[function.name] = names.index(name) - offset
    return found


def argument(call: ast.Call, at: int) -> ast.expr | None:
    return call.args[at] if at < len(call.args) else None


def interpolated(node: ast.AST | None) -> list[str]:
    """Names of variables that a message is, or has in it."""
    if isinstance(node, ast.Name):
        return [node.id]
    parts = node.values if isinstance(node, ast.JoinedStr) else []
    return [p.value.id for p in parts if isinstance(p, ast.FormattedValue) and isinstance(p.value, ast.Name)]


def texts(source: Source, takers: dict[str, int]) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and name_of(node.func) in takers:
            message = argument(node, takers[name_of(node.func)])
            yield from written(message)
            function = source.functions.get(node)
            for name in interpolated(message):
                yield from assigned(function, name)
        elif isinstance(node, ast.Return) and source.functions[node].name in RETURNED:
            yield from written(node.value)


def assigned(function: Function | None, name: str) -> Iterator[str]:
    """What a function may put into a variable."""
    for node in ast.walk(function) if function else ():
        if isinstance(node, ast.Assign) and name in map(name_of, node.targets):
            yield from written(node.value)


def written(node: ast.AST | None) -> Iterator[str]:
    """The templates that an expression may be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield " ".join(node.value.split())
    elif isinstance(node, ast.JoinedStr):
        parts = (p.value if isinstance(p, ast.Constant) else GAP for p in node.values)
        text = "".join(str(part) for part in parts)
        yield re.sub(f"{GAP}+", GAP, " ".join(text.split()))
    elif isinstance(node, ast.IfExp):
        yield from written(node.body)
        yield from written(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from written(value)


def says_something(text: str) -> bool:
    """Whether one can look it up: a word or two, as `none` or `killed by`, are a part of another message."""
    return len(re.findall("[A-Za-z]", text)) >= LETTERS
