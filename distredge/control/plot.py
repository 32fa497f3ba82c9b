"""The picture of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distredge.control.compare import Comparison
from distredge.errors import DistrEdgeError


def plot_comparison(rows: Sequence[Comparison], path: str | Path) -> None:
    """Latency over the lower bound: one column per model and cluster, one mark per policy.

    Raises:
        DistrEdgeError: matplotlib is missing, or the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise DistrEdgeError("--plot needs matplotlib; pip install 'distredge[demo]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    cells = list(dict.fromkeys((row.model, row.cluster) for row in rows))
    policies = list(dict.fromkeys(row.policy for row in rows))
    figure, axes = pyplot.subplots(figsize=(2 + 0.45 * len(cells), 5), layout="constrained")
    for at, policy in enumerate(policies):
        points = {
            (r.model, r.cluster): r.latency_s / r.bound_s for r in rows if r.policy == policy and r.latency_s
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
    axes.set_xticks(range(len(cells)), [f"{Path(m).stem}\n{c}" for m, c in cells], rotation=90, fontsize=7)
    axes.grid(axis="y", which="both", alpha=0.3)
    axes.legend(fontsize=7, ncols=2)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise DistrEdgeError(f"cannot write {path}: {error}") from error
    finally:
        pyplot.close(figure)
