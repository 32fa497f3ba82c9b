"""What benchmarks of one table share: rows are printed as they come, kept as JSON, and go into the docs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sections import table, write_section

Row = dict[str, Any]
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Report:
    """One table.

    Attributes:
        name: of the module in `benchmarks`, of its file of results, and of its section of docs/benchmarks.md.
        title: of the section.
        text: says how the rows were measured.
        head: of the table.
        cells: a row as the table shows it.
    """

    name: str
    title: str
    text: str
    head: Sequence[str]
    cells: Callable[[Row], Sequence[str]]

    def parser(self, description: str | None, models: Iterable[str]) -> argparse.ArgumentParser:
        """`--models` and `--docs`, to which a benchmark adds its own options."""
        parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{self.name}", description=description)
        parser.add_argument("--models", default=",".join(models), help="of the zoo, by commas")
        parser.add_argument("--docs", action="store_true", help="write the table into docs/benchmarks.md")
        return parser

    def write(self, rows: Iterable[Row], *, docs: bool) -> None:
        """Takes all rows, telling each one as it comes."""
        kept = []
        for row in rows:
            kept.append(row)
            print("  ".join(self.cells(row)), flush=True)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{self.name}.json").write_text(json.dumps(kept, indent=1) + "\n")
        if docs:
            lines = table(self.head, map(self.cells, kept))
            text = f"## {self.title}\n\n{self.text}\n\n{lines}"
            write_section(self.name, f"python -m benchmarks.{self.name} --docs", text)
