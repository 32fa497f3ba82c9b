"""Strategies side by side on running peers: the same frame, interleaved rounds, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from distredge.plan.strategy import Strategy
from distredge.runtime.engine import Array
from distredge.runtime.session import InferenceSession


@dataclass(frozen=True)
class Raced:
    """What was measured of one strategy.

    Attributes:
        seconds: of every frame, one at a time, warm-up left out.
        outputs: of the last frame.
    """

    seconds: tuple[float, ...]
    outputs: list[Array]

    @property
    def latency_s(self) -> float:
        """The median."""
        return statistics.median(self.seconds)


def race(
    session: InferenceSession,
    feed: Mapping[str, Array],
    strategies: Mapping[str, Strategy],
    *,
    rounds: int = 5,
    frames: int = 3,
    warm_up: int = 3,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Raced]:
    """Runs all strategies in turn, several times over, since machines are shared and noisy.

    Afterwards the session runs by the last one.

    Args:
        session: on the peers that the strategies are for.
        feed: the frame.
        strategies: by name.
        rounds: how often each one's turn comes.
        frames: measured per turn.
        warm_up: frames before them that are not. The first ones after a change are slower:
            sessions run for the first time, and those of the last plan are taken down.
        progress: called with turns done and turns in all.
    """
    seconds: dict[str, list[float]] = {name: [] for name in strategies}
    outputs: dict[str, list[Array]] = {}
    with session.undisturbed():
        for at in range(rounds):
            for number, (name, strategy) in enumerate(strategies.items()):
                session.use(strategy)
                for _ in range(warm_up):
                    session.run(None, feed)
                for _ in range(frames):
                    begin = time.perf_counter()
                    outputs[name] = session.run(None, feed)
                    seconds[name].append(time.perf_counter() - begin)
                progress(at * len(strategies) + number + 1, rounds * len(strategies))
    return {name: Raced(tuple(seconds[name]), outputs[name]) for name in strategies}
