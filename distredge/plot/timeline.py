"""A timeline as a picture: one lane per peer, compute above, what it sends below."""

from __future__ import annotations

from pathlib import Path

from distredge.plan.execution import REQUESTER
from distredge.plot.canvas import COLOURS, picture
from distredge.sim.timeline import Timeline


def plot_timeline(timeline: Timeline, path: str | Path, title: str = "") -> None:
    """Draws compute (coloured by volume, labelled with its number) and transfers (thin, in the colour of
    the receiver) over milliseconds.

    Raises:
        DistrEdgeError, InputError: see `canvas.picture`.
    """
    peers = [REQUESTER, *range(len(timeline.plan.devices))]
    with picture(path, 12, 1.1 + 0.85 * len(peers)) as axes:
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
        axes.set_xlabel(
            "milliseconds; wide bars: compute, by volume; thin bars: rows on their way, by receiver"
        )
        axes.set_title(title, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
