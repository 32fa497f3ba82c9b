"""The section of docs/benchmarks.md about four measured hosts, between two marks of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- hosts: made by `sudo python -m benchmarks.hosts` -->", "<!-- hosts end -->"
HEADING = """## Measured on four hosts

A [testbed](design/testbed.md) on one machine: CPU shares 0.6, 0.4, 0.3, 0.2; links of 200, 100, 100, 50
Mbit/s; the requester at 1,000. `sudo python -m benchmarks.hosts` makes it, deploys, profiles, compares and
writes this section: medians of single frames, all policies interleaved in several rounds, rows never packed
(`--wire raw`: what packing saves depends on the data, and is not predicted). *Error* is that of
the simulator, by what `fab profile` has just measured. *auto / it*: how many times as fast `auto` was,
measured. `offload` is the best single host; *advised*: how many times as fast as that host all of them
together would be by `distredge advise`, before anything ran.

"""


def write_docs(results: Mapping[str, Any]) -> None:
    """Writes the section of these results."""
    text = DOCS.read_text()
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    behind = rest.partition(END)[2]
    DOCS.write_text(f"{before}{BEGIN}\n{section(results)}{END}{behind}")


def section(results: Mapping[str, Any]) -> str:
    """All tables, as Markdown."""
    parts = [HEADING, _summary(results)]
    for name, found in results.items():
        shape = "×".join(map(str, found["shape"][2:]))
        parts.append(
            f"\n### {name}, {shape}\n\n{found['when']}; {found['machine']}, load {found['load']:.1f}.\n"
        )
        head = ("policy", "measured, ms", "predicted, ms", "error", "auto / it", "images/s")
        parts.append("\n" + _table(head, _rows(found["policies"])))
    return "".join(parts)


def _summary(results: Mapping[str, Any]) -> str:
    lines = []
    for name, found in results.items():
        rows = _measured(found["policies"])
        errors = [abs(row["latency_error"]) for row in rows]
        ratios = {row["policy"]: _lead(row, rows) for row in rows if row["policy"] != "auto"}
        closest = min(ratios, key=lambda policy: ratios[policy])
        lines.append(
            (
                name,
                f"{median(errors):.1%}",
                f"{max(errors):.1%}",
                f"{ratios[closest]:.2f} ({closest})",
                f"{ratios['offload']:.2f}",
                f"{found['advised_gain']:.2f}" if "advised_gain" in found else "",
            )
        )
    head = (
        "model",
        "median error",
        "largest error",
        "auto / the closest",
        "auto / best single host",
        "advised",
    )
    return _table(head, lines)


def _rows(policies: Sequence[Mapping[str, Any]]) -> Iterable[Sequence[str]]:
    rows = _measured(policies)
    for row in sorted(rows, key=lambda row: row["measured_latency_s"]):
        rate = row["measured_images_per_second"]
        yield (
            row["policy"],
            f"{row['measured_latency_s'] * 1e3:.1f}",
            f"{row['latency_s'] * 1e3:.1f}",
            f"{row['latency_error']:+.1%}",
            f"{_lead(row, rows):.2f}",
            f"{rate:.1f}" if rate else "",
        )


def _lead(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> float:
    auto = next(each for each in rows if each["policy"] == "auto")
    return float(row["measured_latency_s"] / auto["measured_latency_s"])


def _measured(policies: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in policies if "measured_latency_s" in row]


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *lines))
