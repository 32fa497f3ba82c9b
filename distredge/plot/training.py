"""How an agent learned: the best latency met, over episodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distredge.errors import InputError
from distredge.plot.canvas import COLOURS, picture

FORMAT = "distredge-training-1"


@dataclass(frozen=True)
class Training:
    """What was noted while an agent learned.

    Attributes:
        title: of which model, where.
        episodes: met by then, rising.
        latencies_s: the best latency met by then, as many.
    """

    title: str
    episodes: Sequence[int]
    latencies_s: Sequence[float]

    def save(self, path: str | Path) -> None:
        """Writes it as JSON.

        Raises:
            InputError: the file cannot be written.
        """
        document = {
            "format": FORMAT,
            "title": self.title,
            "curve": list(zip(self.episodes, self.latencies_s, strict=True)),
        }
        try:
            Path(path).write_text(json.dumps(document))
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from None

    @classmethod
    def load(cls, path: str | Path) -> Training:
        """Reads what `save` wrote.

        Raises:
            InputError: it is something else.
        """
        try:
            document = json.loads(Path(path).read_text())
            if document["format"] != FORMAT:
                raise ValueError(document["format"])
            episodes, latencies_s = zip(*document["curve"], strict=True)
            return cls(str(document["title"]), [int(e) for e in episodes], [float(s) for s in latencies_s])
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            remedy = "write one with `distredge plan --policy osds --training FILE`"
            raise InputError(f"{path}: is no training curve; {remedy}") from None


def plot_training(training: Training, path: str | Path) -> None:
    """Draws the curve.

    Raises:
        DistrEdgeError, InputError: see `canvas.picture`.
    """
    with picture(path, 8, 4.5) as axes:
        milliseconds = [1e3 * s for s in training.latencies_s]
        axes.step(training.episodes, milliseconds, where="post", color=COLOURS[1])
        axes.set_xlabel("episodes")
        axes.set_ylabel("best latency met, ms (simulated)")
        axes.set_title(training.title, loc="left", fontsize=10)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
