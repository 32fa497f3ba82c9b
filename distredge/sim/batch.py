"""Many strategies of one scheme at once, without Python between them."""

from __future__ import annotations

from distredge.sim.jit import compiled
from distredge.sim.kernel import Work, price
from distredge.sim.packed import Packed
from distredge.sim.program import Program
from distredge.sim.records import Floats, Ints


@compiled
def price_batch(
    g: Packed, p: Program, volumes: int, w: Work, bounds: Ints, tails: Ints, to: Floats, ready: Floats
) -> None:
    """Latencies of strategies; infinity where the scratch was too small.

    Args:
        g, p, volumes, w: as `price`.
        bounds: [strategy, volume, part + 1].
        tails: [strategy].
        to: [strategy], seconds.
        ready: [strategy, volume, device], seconds when each device has done its share of each volume, or
            of the volume before, where it has none; of length 0 if nobody asks.
    """
    for at in range(len(bounds)):
        to[at] = price(g, p, volumes, w, bounds[at], tails[at], 1e30)
        if len(ready) > 0:
            for v in range(volumes):
                for device in range(g.devices):
                    ready[at, v, device] = 0.0
            for task in range(1, w.counts[0]):
                v, device = w.task[task].volume, w.task[task].on
                if v < volumes:
                    ready[at, v, device] = max(ready[at, v, device], w.task[task].end)
            for v in range(1, volumes):
                for device in range(g.devices):
                    ready[at, v, device] = max(ready[at, v, device], ready[at, v - 1, device])


@compiled
def check_bounds(bounds: Ints, rows: Ints) -> int:
    """The first strategy whose bounds do not fit, or -1."""
    for at in range(bounds.shape[0]):
        for v in range(bounds.shape[1]):
            last = bounds.shape[2] - 1
            if bounds[at, v, 0] != 0 or bounds[at, v, last] != rows[v]:
                return at
            for device in range(last):
                if bounds[at, v, device] > bounds[at, v, device + 1]:
                    return at
    return -1
