"""What every picture begins and ends with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distredge.errors import DistrEdgeError, InputError

COLOURS = ("#d64836", "#3478c4", "#4aa054", "#9660b4", "#d69428", "#2aa0a0", "#b05a7a", "#7a7a7a")
"""By device, or by volume; again from the first when there are more."""


@contextmanager
def picture(path: str | Path, width: float, height: float, panels: int = 1) -> Iterator[Any]:
    """A matplotlib figure's axes (several: a list), written at the end; the file's ending says in what form.

    Args:
        path: of the picture: .png, .svg, .pdf.
        width, height: in inches.
        panels: axes below each other.

    Raises:
        DistrEdgeError: matplotlib is missing, or the file cannot be written.
        InputError: the ending names no form of picture.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise DistrEdgeError("a picture needs matplotlib; pip install 'distredge[demo]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(panels, 1, figsize=(width, height), layout="constrained")
    known = figure.canvas.get_supported_filetypes()
    try:
        if Path(path).suffix.lstrip(".").lower() not in known:
            raise InputError(f"{path}: its ending names no kind of picture; write it as .png or .svg")
        yield axes
        figure.savefig(path, dpi=130)
    except OSError as error:
        raise DistrEdgeError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        pyplot.close(figure)
