"""A comparison of policies as a picture: bars for a few models and clusters, marks for a whole grid."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distredge.errors import InputError
from distredge.plot.canvas import COLOURS, picture

Row = Mapping[str, Any]
"""As `Comparison.to_json` gives it."""
MOST_BARS = 4
"""Models × clusters that still get bars."""
NEEDED = ("model", "cluster", "policy", "latency_s", "bound_s")


def read_rows(path: str | Path) -> list[Row]:
    """What `distredge compare --json` printed.

    Raises:
        InputError: it is something else.
    """
    try:
        rows = json.loads(Path(path).read_text())
        if not rows or not all(set(NEEDED) <= row.keys() for row in rows):
            raise ValueError
        return [{**row, "bound_s": float(row["bound_s"])} for row in rows]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError, RecursionError):
        text = f"{path}: holds no comparison; write one with `distredge compare ... --json > {path}`"
        raise InputError(text) from None


def plot_comparison(rows: Sequence[Row], path: str | Path) -> None:
    """Bars of latency (predicted, and measured where it was) or, for many cells, marks of latency over bound.

    Raises:
        DistrEdgeError, InputError: see `canvas.picture`.
    """
    cells = list(dict.fromkeys((row["model"], row["cluster"]) for row in rows))
    if len(cells) > MOST_BARS:
        _marks(rows, cells, path)
        return
    tallest = max(sum(_cell(row) == cell for row in rows) for cell in cells)
    with picture(path, 8, (0.8 + 0.3 * tallest) * len(cells), len(cells)) as axes:
        for cell, panel in zip(cells, [axes] if len(cells) == 1 else axes, strict=True):
            _bars([row for row in rows if _cell(row) == cell], panel)


def _cell(row: Row) -> tuple[str, str]:
    return row["model"], row["cluster"]


def _bars(rows: Sequence[Row], axes: Any) -> None:
    rows = sorted((row for row in rows if row["latency_s"]), key=lambda row: row["latency_s"])
    measured = [float(row.get("measured_latency_s") or 0.0) for row in rows]
    height = 0.4 if any(measured) else 0.8
    for at, row in enumerate(rows):
        axes.barh(at, 1e3 * row["latency_s"], height, color=COLOURS[1], label="predicted" if not at else None)
        axes.text(1e3 * row["latency_s"], at, f" {1e3 * row['latency_s']:.1f}", va="center", fontsize=7)
        if measured[at]:
            label = None if any(measured[:at]) else "measured"
            axes.barh(at + height, 1e3 * measured[at], height, color=COLOURS[0], label=label)
            axes.text(1e3 * measured[at], at + height, f" {1e3 * measured[at]:.1f}", va="center", fontsize=7)
    if not any(measured) and rows:
        axes.axvline(1e3 * rows[0]["bound_s"], color="#222222", linestyle=":", label="lower bound")
    axes.set_yticks(
        [at + (height / 2 if any(measured) else 0) for at in range(len(rows))], [r["policy"] for r in rows]
    )
    axes.invert_yaxis()
    axes.set_xlabel("latency, ms")
    if rows:
        axes.set_title(f"{Path(rows[0]['model']).stem} on {rows[0]['cluster']}", loc="left", fontsize=10)
        axes.legend(frameon=False, fontsize=8, loc="upper right")
    axes.spines[["top", "right"]].set_visible(False)


def _marks(rows: Sequence[Row], cells: list[tuple[str, str]], path: str | Path) -> None:
    with picture(path, 2 + 0.45 * len(cells), 5) as axes:
        for at, policy in enumerate(dict.fromkeys(row["policy"] for row in rows)):
            points = {
                _cell(r): r["latency_s"] / r["bound_s"]
                for r in rows
                if r["policy"] == policy and r["latency_s"]
            }
            strong = policy in ("auto", "osds", "search")
            axes.plot(
                [cells.index(cell) for cell in points],
                list(points.values()),
                marker="o" if strong else "._xX+1234dPvs"[at % 13],
                linestyle="-" if policy == "auto" else "none",
                label=policy,
            )
        axes.set_yscale("log")
        axes.set_ylabel("latency / lower bound")
        names = [f"{Path(model).stem}\n{cluster}" for model, cluster in cells]
        axes.set_xticks(range(len(cells)), names, rotation=90, fontsize=7)
        axes.grid(axis="y", which="both", alpha=0.3)
        axes.legend(fontsize=7, ncols=2)
