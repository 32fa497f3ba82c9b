"""Tables and picture of the planning benchmark, written between two marks of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import exp, log
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- planning: made by `make bench-planning` -->", "<!-- planning ends -->"
BASELINES = ("offload", "modnn", "mednn", "coedge", "deepthings", "deeperthings", "aofl")
SIMPLE = ("equal", "proportional", "lcpss")


def write_docs(rows: Mapping[str, Any], best: Mapping[str, Any], links: Mapping[str, Any]) -> None:
    """Writes the tables of these results into docs/benchmarks.md, and the picture beside it."""
    path = DOCS / "benchmarks.md"
    text = path.read_text() if path.exists() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, behind = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{planning_section(rows, best, links)}{END}{behind}")
    (DOCS / "pictures").mkdir(exist_ok=True)
    draw(rows, best, DOCS / "pictures" / "planning.png")


def planning_section(rows: Mapping[str, Any], best: Mapping[str, Any], links: Mapping[str, Any]) -> str:
    """All tables, as Markdown."""
    models = list(dict.fromkeys(key.split()[0] for key in rows))
    parts = ["### Acceptance figures\n", _acceptance(rows, best), "### Each policy over the grid\n"]
    parts.append(
        "Latency over best known, geometric mean over the cells of a model, and the worst cell in brackets.\n"
    )
    parts.append(_by_policy(rows, best, models))
    if links:
        parts += ["### A link falls to a quarter\n", _links(links)]
    for model in models:
        parts += [f"### {model}\n", _by_cell(rows, best, model)]
    return "\n".join(parts)


def _acceptance(rows: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    auto = [_ratio(row, best[key], "auto") for key, row in rows.items()]
    planning = [found["planning_s"] for row in rows.values() for found in row["policies"]["auto"]]
    search = [
        found["latency_s"] / best[key]["latency_s"]
        for key, row in rows.items()
        for found in row["policies"]["search"]
    ]
    ahead = sum(
        min(_latency(row, name) for name in (*BASELINES, *SIMPLE)) >= _latency(row, "auto") * (1 - 1e-9)
        for row in rows.values()
    )
    lines = [
        ("`auto` above best known, mean", f"{_percent(sum(auto) / len(auto))}"),
        ("`auto` above best known, worst cell", f"{_percent(max(auto))}"),
        ("cells in which `auto` is within 1 %", f"{sum(a <= 1.01 for a in auto)} of {len(auto)}"),
        ("cells in which `auto` is not behind a baseline", f"{ahead} of {len(auto)}"),
        ("longest planning of `auto`", f"{max(planning):.2f} s"),
        ("`search`, 0.3 s, three seeds: above best known, mean", f"{_percent(sum(search) / len(search))}"),
        ("`search`, 0.3 s, three seeds: above best known, worst", f"{_percent(max(search))}"),
    ]
    return _table(("figure", "measured"), lines)


def _by_policy(rows: Mapping[str, Any], best: Mapping[str, Any], models: Sequence[str]) -> str:
    lines = []
    for name in (*BASELINES, "best of these seven", *SIMPLE, "search", "auto", "lower bound"):
        cells = []
        for model in models:
            ratios = [_ratio(row, best[key], name) for key, row in rows.items() if key.split()[0] == model]
            cells.append(f"{exp(sum(map(log, ratios)) / len(ratios)):.2f} ({max(ratios):.2f})")
        lines.append((name, *cells))
    return _table(("policy", *models), lines)


def _by_cell(rows: Mapping[str, Any], best: Mapping[str, Any], model: str) -> str:
    lines = []
    for key, row in rows.items():
        if key.split()[0] != model:
            continue
        known = best[key]
        name = min(BASELINES, key=lambda baseline: _latency(row, baseline))
        lines.append(
            (
                key.split()[1],
                f"{row['bound_s'] * 1e3:.1f}",
                f"{known['latency_s'] * 1e3:.2f}",
                f"{_latency(row, 'auto') * 1e3:.2f}",
                _percent(_ratio(row, known, "auto")),
                f"{name} {_latency(row, name) * 1e3:.2f}",
                f"{_latency(row, name) / _latency(row, 'auto'):.2f}",
                f"{_latency(row, 'offload') / _latency(row, 'auto'):.2f}",
            )
        )
    head = ("cell", "bound, ms", "best known, ms", "auto, ms", "above best", "best baseline, ms")
    return _table((*head, "baseline / auto", "offload / auto"), lines)


def _links(links: Mapping[str, Any]) -> str:
    lines = []
    for cell in dict.fromkeys(key.rsplit(" ", 1)[0] for key in links):
        rows = [row for key, row in links.items() if key.rsplit(" ", 1)[0] == cell]
        old, new = ([row[which] / row["best_s"] for row in rows] for which in ("stale_s", "new_s"))
        longest = max(row["planning_s"] for row in rows)
        lines.append(
            (
                cell,
                f"{_percent(sum(old) / len(old))} ({_percent(max(old))})",
                f"{_percent(sum(new) / len(new))} ({_percent(max(new))})",
                f"{longest * 1e3:.0f} ms",
            )
        )
    return _table(
        ("cell", "plan in use: above best known, mean (worst)", "new plan", "longest planning"), lines
    )


def _latency(row: Mapping[str, Any], name: str) -> float:
    """The worst over seeds."""
    if name == "lower bound":
        return float(row["bound_s"])
    if name == "best of these seven":
        return min(_latency(row, baseline) for baseline in BASELINES)
    return max(float(found["latency_s"]) for found in row["policies"][name])


def _ratio(row: Mapping[str, Any], known: Mapping[str, Any], name: str) -> float:
    return _latency(row, name) / float(known["latency_s"])


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):.1f} %"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *lines))


def draw(rows: Mapping[str, Any], best: Mapping[str, Any], path: Path) -> None:
    """Latency over best known: one panel per model, one column per cell."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = list(dict.fromkeys(key.split()[0] for key in rows))
    figure, panels = pyplot.subplots(
        1, len(models), figsize=(3.2 * len(models), 4), sharey=True, layout="constrained", squeeze=False
    )
    marks = "osv^<>D"
    for model, axes in zip(models, panels[0], strict=True):
        cells = [key for key in rows if key.split()[0] == model]
        for name, mark in zip(BASELINES, marks, strict=True):
            ratios = [_ratio(rows[key], best[key], name) for key in cells]
            axes.plot(range(len(cells)), ratios, mark, markersize=4, label=name, alpha=0.8)
        for name, style in (("auto", "k-"), ("lower bound", "k:")):
            axes.plot(
                range(len(cells)), [_ratio(rows[key], best[key], name) for key in cells], style, label=name
            )
        axes.set_title(model)
        axes.set_yscale("log")
        axes.set_xticks(range(len(cells)), [key.split()[1] for key in cells], rotation=90, fontsize=7)
        axes.grid(axis="y", which="both", alpha=0.3)
    panels[0][0].set_ylabel("latency / best known")
    panels[0][-1].legend(fontsize=7)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
