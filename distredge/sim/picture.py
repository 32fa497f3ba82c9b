"""A timeline as a picture: one lane per peer, compute above, what it sends below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distredge.errors import DistrEdgeError
from distredge.plan.execution import REQUESTER
from distredge.sim.timeline import Timeline

COLOURS = ("#d64836", "#3478c4", "#4aa054", "#9660b4", "#d69428", "#2aa0a0", "#b05a7a", "#7a7a7a")


def pyplot(what: str) -> Any:
    """matplotlib's pyplot, drawing into files.

    Raises:
        DistrEdgeError: matplotlib is missing; the message says what wanted it.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise DistrEdgeError(f"{what} needs matplotlib; pip install 'distredge[demo]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as plots

    return plots


def plot_timeline(timeline: Timeline, path: str | Path, title: str = "") -> None:
    """Draws compute (coloured by volume, labelled with its number) and transfers (thin, in the colour of
    the receiver) over milliseconds.

    Raises:
        DistrEdgeError: matplotlib is missing, or the file cannot be written.
    """
    plots = pyplot("a picture of a timeline")
    peers = [REQUESTER, *range(len(timeline.plan.devices))]
    figure, axes = plots.subplots(figsize=(12, 1.1 + 0.85 * len(peers)), layout="constrained")
    for lane, peer in enumerate(peers):
        for task in timeline.tasks:
            if task.device == peer:
                volume = timeline.plan.tasks[task.task].volume
                start, length = task.start_s * 1e3, (task.end_s - task.start_s) * 1e3
                colour = COLOURS[volume % len(COLOURS)]
                axes.barh(
                    lane, length, left=start, height=0.42, color=colour, edgecolor="white", linewidth=0.4
                )
                if length > 0.02 * timeline.makespan_s * 1e3:
                    axes.text(start + length / 2, lane, str(volume), ha="center", va="center", fontsize=7)
        for sent in timeline.transfers:
            if sent.source == peer:
                start, length = sent.start_s * 1e3, (sent.arrived_s - sent.start_s) * 1e3
                colour = "#222222" if sent.target == REQUESTER else COLOURS[sent.target % len(COLOURS)]
                axes.barh(lane + 0.36, length, left=start, height=0.14, color=colour, alpha=0.7)
    for frame in timeline.frames:
        axes.axvline(frame.answered_s * 1e3, color="#222222", linewidth=0.6, linestyle=":")
    axes.set_yticks(range(len(peers)), [timeline.name(peer) for peer in peers])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds; wide bars: compute, by volume; thin bars: rows on their way, by receiver")
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, dpi=130)
    except OSError as error:
        raise DistrEdgeError(f"{path}: {error.strerror or error}") from None
    finally:
        plots.close(figure)
