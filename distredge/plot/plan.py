"""A plan as a picture: one column per volume, in it the rows of each device."""

from __future__ import annotations

from pathlib import Path

from distredge.plan.execution import ExecutionPlan
from distredge.plot.canvas import COLOURS, picture

LABELLED = 0.05
"""Parts of a smaller share of the height carry no number."""


def plot_plan(plan: ExecutionPlan, path: str | Path, title: str = "") -> None:
    """Draws the share of each volume's rows that each device owns, lane by lane, with the number of rows.

    Raises:
        DistrEdgeError, InputError: see `canvas.picture`.
    """
    splits = plan.strategy.splits
    owners = plan.strategy.part_devices
    with picture(path, 2.5 + 0.55 * len(splits), 4.2) as axes:
        for part, device in enumerate(plan.strategy.part_devices):
            colour, first = COLOURS[device % len(COLOURS)], device not in owners[:part]
            tops = [split.bounds[part] / split.rows for split in splits]
            sizes = [split.part(part).size / split.rows for split in splits]
            name = plan.devices[device] if first else "_nolegend_"
            axes.bar(range(len(splits)), sizes, 0.94, tops, color=colour, label=name, edgecolor="white")
            for at, split in enumerate(splits):
                if sizes[at] > LABELLED:
                    rows, middle = str(split.part(part).size), tops[at] + sizes[at] / 2
                    axes.text(at, middle, rows, ha="center", va="center", color="white", fontsize=8)
        axes.set_ylim(1, 0)
        axes.set_yticks([])
        axes.set_ylabel("rows, from the top")
        axes.set_xticks(range(len(splits)))
        axes.set_xlabel("volume, from the image to the answer; numbers: rows that a device has of it")
        axes.set_title(
            title or f"{len(splits)} volumes over {len(plan.devices)} devices", loc="left", fontsize=10
        )
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
