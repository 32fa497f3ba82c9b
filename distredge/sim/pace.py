"""How fast devices compute while bytes leave and come; see docs/design/transfer-semantics.md."""

from __future__ import annotations

from dataclasses import dataclass

from distredge.cluster.network import Network

SLOWEST = 0.1
"""Of its speed: computing goes on, however much leaves and comes."""


@dataclass(slots=True)
class Running:
    """A task under way.

    Attributes:
        frame, task: which.
        left_s: of its seconds, what was left at `since_s`.
        event: number of the event that ends it.
    """

    frame: int
    task: int
    left_s: float
    since_s: float
    event: int


class Paces:
    """The pace of each device, 1 where nothing moves, and what it computes."""

    def __init__(self, network: Network) -> None:
        self._costs = network.costs_s_per_byte.tolist()
        self.any = bool(network.costs_s_per_byte.any())
        self.running: dict[int, Running] = {}
        self._paces = [1.0] * len(self._costs)

    def end_s(self, device: int) -> float:
        """When the device's task will end, if nothing changes."""
        running = self.running[device]
        return running.since_s + running.left_s / self._paces[device]

    def change(self, device: int, rates: tuple[float, float], now: float) -> bool:
        """So many bytes a second leave a device and come to it from now on; whether its task ends at another
        time."""
        lost = sum(cost * rate for cost, rate in zip(self._costs[device], rates, strict=True))
        pace = max(SLOWEST, 1.0 - lost)
        old, self._paces[device] = self._paces[device], pace
        running = self.running.get(device)
        if running is None or pace == old:
            return False
        running.left_s -= old * (now - running.since_s)
        running.since_s = now
        return True
