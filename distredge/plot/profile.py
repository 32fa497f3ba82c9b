"""A device's profile as a picture: rows -> milliseconds of its heaviest segments; GPUs show a staircase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distredge.cluster.profile import DeviceProfile
from distredge.cluster.segment import ComputeTimes, segment_rows
from distredge.graph.model import Graph
from distredge.plot.canvas import COLOURS, picture

SEGMENTS = 6
"""As many are drawn, those that take most."""

Curve = tuple[NDArray[np.int64], NDArray[np.float64]]


def plot_profile(profile: DeviceProfile, path: str | Path) -> None:
    """Draws what was measured: the median at each row count, and where nine of ten samples lie.

    Raises:
        DistrEdgeError, InputError: see `canvas.picture`.
    """
    heaviest = sorted(profile.segments.values(), key=lambda s: -s.quantile(0.5)[-1])[:SEGMENTS]
    curves = {_label(each.nodes): (np.array(each.rows), 1e3 * each.quantile(0.5)) for each in heaviest}
    bands = [(1e3 * each.quantile(0.05), 1e3 * each.quantile(0.95)) for each in heaviest]
    _draw(curves, bands, path, f"{profile.device}, measured on {profile.model}, {profile.threads} threads")


def plot_times(times: ComputeTimes, graph: Graph, path: str | Path) -> None:
    """Draws what synthetic times state, at every row count.

    Raises:
        DistrEdgeError, InputError: see `canvas.picture`.
    """
    tables = {}
    for node in range(len(graph.nodes)):
        rows = segment_rows(graph, (node,))
        tables[node] = 1e3 * times.table((node,), rows)
    heaviest = sorted(tables, key=lambda node: -tables[node][-1])[:SEGMENTS]
    curves = {
        f"{graph.nodes[node].op_type} {node}": (np.arange(len(tables[node])), tables[node])
        for node in heaviest
    }
    _draw(curves, [], path, f"{times.device}, stated for {graph.name}")


def _label(nodes: Sequence[int]) -> str:
    return f"node {nodes[0]}" if len(nodes) == 1 else f"nodes {nodes[0]} to {nodes[-1]}"


def _draw(
    curves: Mapping[str, Curve],
    bands: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    path: str | Path,
    title: str,
) -> None:
    with picture(path, 8, 5) as axes:
        for at, (label, (rows, medians)) in enumerate(curves.items()):
            colour = COLOURS[at % len(COLOURS)]
            axes.plot(rows, medians, color=colour, label=label, marker="." if bands else None)
            if bands:
                axes.fill_between(rows, *bands[at], color=colour, alpha=0.2, linewidth=0)
        axes.set_xlabel("rows")
        axes.set_ylabel("milliseconds")
        axes.set_ylim(bottom=0)
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
