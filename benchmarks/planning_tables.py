"""`python -m benchmarks.planning_tables`: results of the planning benchmarks as tables and a picture, written
between two marks of docs/benchmarks.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from math import exp, log
from pathlib import Path
from typing import Any

from benchmarks.planning_grid import RESULTS, load_best

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- planning: made by `make bench-planning` -->", "<!-- planning ends -->"
BASELINES = ("offload", "modnn", "mednn", "coedge", "deepthings", "deeperthings", "aofl")
SIMPLE = ("equal", "proportional", "lcpss")


def main() -> None:
    """Writes tables and picture of the results that are there."""
    rows, best = read("planning"), load_best()
    rows = {key: row for key, row in rows.items() if key in best}
    path = DOCS / "benchmarks.md"
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, behind = rest.partition(END)
    parts = [*grid_section(rows, best), *osds_section(read("osds"), best)]
    parts += [*links_section(read("planning_links")), *rate_section(read("planning_rate"))]
    path.write_text(f"{before}{BEGIN}\n{chr(10).join(parts)}{END}{behind}")
    (DOCS / "pictures").mkdir(exist_ok=True)
    draw(rows, best, DOCS / "pictures" / "planning.png")


def read(name: str) -> Any:
    """One benchmark's results; empty if it has not been run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def grid_section(rows: Mapping[str, Any], best: Mapping[str, Any]) -> list[str]:
    """Every policy in every cell."""
    models = list(dict.fromkeys(key.split()[0] for key in rows))
    searched = {key: row for key, row in rows.items() if best[key].get("searches", 0) >= 10}
    parts = ["### Acceptance figures\n"]
    if len(searched) < len(rows):
        parts.append(
            f"Over the {len(searched)} of {len(rows)} cells that have had their ten long searches. In the "
            "others best known is the best answer met so far, mostly `auto`'s own.\n"
        )
    parts += [_acceptance(searched, best)] if searched else []
    parts += [
        "### Each policy over the grid\n",
        "Latency over best known: geometric mean over the cells of a model, in brackets the worst cell.\n",
        _by_policy(rows, best, models),
    ]
    for model in models:
        parts += [f"### {model}\n", _by_cell(rows, best, model)]
    return parts


def osds_section(rows: Mapping[str, Any], best: Mapping[str, Any]) -> list[str]:
    """The learned policy: one seed over the cells, three seeds and all ways in a few."""
    rows = {key: row for key, row in rows.items() if key.rsplit(" ", 1)[0] in best}
    if not rows:
        return []

    def above(key: str, way: str) -> float:
        return rows[key]["ways"][way]["latency_s"] / best[key.rsplit(" ", 1)[0]]["latency_s"] - 1

    def summary(keys: Sequence[str], way: str) -> str:
        values = [above(key, way) for key in keys]
        return f"{100 * sum(values) / len(values):.1f} % ({100 * max(values):.1f} %)"

    first = [key for key in rows if key.endswith(" 0")]
    ways = list(dict.fromkeys(way for row in rows.values() for way in row["ways"]))
    named = [key for key, row in rows.items() if "paper" in row["ways"]]
    behind = sum(above(key, "improved") > above(key, "baseline") + 1e-9 for key in rows)
    spent = {f"{row['seconds']:g} s of {row['clock']} time" for row in rows.values()}
    parts = [
        "### The learned policy\n",
        f"Training: {', '.join(sorted(spent))}, one thread. The improved form is behind the best baseline in "
        f"{behind} of {len(rows)} runs.\n",
        _table(
            (f"seed 0, {len(first)} cells: above best known, mean (worst)", "best baseline", "improved form"),
            [
                (model, summary(keys, "baseline"), summary(keys, "improved"))
                for model in dict.fromkeys(key.split()[0] for key in first)
                if (keys := [key for key in first if key.split()[0] == model])
            ],
        ),
    ]
    if named:
        cells = list(dict.fromkeys(key.rsplit(" ", 1)[0] for key in named))
        lines = [
            (
                way,
                *(summary([k for k in named if k.rsplit(" ", 1)[0] == c], way) for c in cells),
                summary(named, way),
            )
            for way in ways
        ]
        parts.append(_table((f"{len(named)} runs: above best known, mean (worst)", *cells, "all"), lines))
    return parts


def links_section(links: Mapping[str, Any]) -> list[str]:
    """The plan in use and new ones, when a link falls to a quarter."""
    return ["### A link falls to a quarter\n", _links(links)] if links else []


def rate_section(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The evaluator's rate."""
    head = ("model", "cluster", "devices", "volumes", "random parts, per s", "near equal parts, per s")
    fields = ("model", "cluster", "devices", "volumes", "random_per_s", "near_equal_per_s")
    lines = [[f"{v:,}" if isinstance(v := row[f], int) else v for f in fields] for row in rows]
    return ["### The evaluator's rate, one core\n", _table(head, lines)] if rows else []


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
                key.split()[1] + "*" * (known.get("searches", 0) >= 10),
                f"{row['bound_s'] * 1e3:.1f}",
                f"{known['latency_s'] * 1e3:.2f}",
                f"{_latency(row, 'auto') * 1e3:.2f}",
                _percent(_ratio(row, known, "auto")),
                f"{name} {_latency(row, name) * 1e3:.2f}",
                f"{_latency(row, name) / _latency(row, 'auto'):.2f}",
                f"{_latency(row, 'offload') / _latency(row, 'auto'):.2f}",
            )
        )
    head = (
        "cell (*: ten searches)",
        "bound, ms",
        "best known, ms",
        "auto, ms",
        "above best",
        "best baseline, ms",
    )
    return _table((*head, "baseline / auto", "offload / auto"), lines)


def _links(links: Mapping[str, Any]) -> str:
    def summary(rows: Sequence[Mapping[str, Any]], which: str) -> str:
        ratios = [row[which] / row["best_s"] for row in rows]
        inside = sum(ratio <= 1.05 for ratio in ratios)
        return f"{_percent(sum(ratios) / len(ratios))} ({_percent(max(ratios))}), {inside} of {len(ratios)}"

    cells = dict.fromkeys(key.rsplit(" ", 1)[0] for key in links)
    groups = {cell: [row for key, row in links.items() if key.rsplit(" ", 1)[0] == cell] for cell in cells}
    groups["all"] = list(links.values())
    lines = [
        (
            cell,
            *(summary(rows, which) for which in ("stale_s", "new_s", "ahead_s")),
            f"{max(row['planning_s'] for row in rows) * 1e3:.0f} ms",
        )
        for cell, rows in groups.items()
    ]
    head = ("above best known, mean (worst), within 5 %", "plan in use", "new plan")
    return _table((*head, "new plan, with plans made ahead", "longest planning"), lines)


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


if __name__ == "__main__":
    main()
