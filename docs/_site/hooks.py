"""Pages of the site that are made from the program itself, so that they cannot go stale."""

from __future__ import annotations

import argparse
import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent.parent
COLUMNS = "100"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    for path, text in {"reference/commands.md": commands(), "examples.md": examples()}.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Puts files of the checkout where a page names them: `<!-- file: PATH -->`."""

    def put(match: re.Match[str]) -> str:
        path = ROOT / match[1]
        language = {".py": "python"}.get(path.suffix, path.suffix[1:])
        return f"```{language}\n{path.read_text().strip()}\n```"

    return re.sub(r"<!-- file: (\S+) -->", put, markdown)


def commands() -> str:
    """Every command's help, from its argument parser."""
    os.environ["COLUMNS"] = COLUMNS
    from distredge.cli import build_parser

    lines = [
        "# Commands",
        "",
        "Each prints its help with `--help`. `fab` and the launcher: [Deploying](../deploying.md).",
        "",
    ]
    for name, parser in sorted(subcommands(build_parser())):
        lines += [f"## `distredge {name}`", "", "```text", parser.format_help().strip(), "```", ""]
    return "\n".join(lines)


def subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Names and parsers."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def examples() -> str:
    """Every program in `examples/`, under its first line; CI runs them."""
    lines = ["# Examples", "", "They are in the checkout's `examples/`, and CI runs each of them.", ""]
    for path in sorted((ROOT / "examples").rglob("*.py")):
        text = path.read_text()
        about = (ast.get_docstring(ast.parse(text)) or path.name).splitlines()[0]
        name = path.relative_to(ROOT / "examples")
        lines += [f"## {name}", "", about, "", "```python", text.strip(), "```", ""]
    return "\n".join(lines)
