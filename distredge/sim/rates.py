"""How many images a second a strategy sustains, and what binds it, also where frames are dealt out."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from math import inf

from distredge.plan.execution import REQUESTER
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import Strategy
from distredge.plan.wire import whole_bytes
from distredge.sim.pricing import Pricer
from distredge.sim.tables import task_seconds


@dataclass(frozen=True)
class Load:
    """What one frame takes of everything that frames share.

    Attributes:
        seconds: how long each is busy: `compute NAME`, `link NAME up`, `link NAME down`, `access point`.
    """

    seconds: dict[str, float]

    @property
    def most_s(self) -> float:
        """Of the resource that is busy longest: no stream has frames closer together."""
        return max(self.seconds.values(), default=0.0)

    @property
    def binds(self) -> str:
        """The resource that is busy longest."""
        return max(self.seconds, key=lambda name: self.seconds[name], default="")


@dataclass(frozen=True)
class StreamRate:
    """Images per second of a strategy.

    Attributes:
        images_per_second: in the steady state, with enough frames under way.
        each: the same of every way that frames may take; their sum.
        binds: the device or link that is busy longest, and `share`, how much of the time.
    """

    images_per_second: float
    each: tuple[float, ...]
    binds: str
    share: float


def load_of(pricer: Pricer, way: Strategy) -> Load:
    """What one frame takes that goes this way (a strategy with none beside it).

    Raises:
        StrategyError: it does not fit the problem.
    """
    device = only_device(way)
    problem = pricer.problem
    if device is not None:
        graph = problem.graph
        sent = sum(whole_bytes(graph, name, problem.wire) for name in graph.inputs)
        returned = sum(whole_bytes(graph, name, problem.wire) for name in graph.outputs)
        moved = Counter({(REQUESTER, device): sent, (device, REQUESTER): returned})
        busy = {device: pricer.single_device_compute_s(device)}
    else:
        plan = pricer.compile(way)
        seconds = task_seconds(problem.graph, plan, pricer.times)
        moved, busy = Counter(), {}
        for task, spent_s in zip(plan.tasks, seconds, strict=True):
            busy[task.device] = busy.get(task.device, 0.0) + spent_s
        for transfer in plan.transfers:
            moved[transfer.source, transfer.target] += plan.sent_bytes(transfer)
    return Load(_seconds(problem, moved, busy))


def stream_rate(pricer: Pricer, strategy: Strategy, in_flight: int = 8) -> StreamRate:
    """What a strategy does with a stream.

    One way is replayed; one device alone needs none. Several ways are as fast as all of them together, as far
    as what they share allows: each then gets less in the same proportion.

    Args:
        pricer: of the problem.
        strategy: with those beside it.
        in_flight: frames of each way that are under way at a time.

    Raises:
        StrategyError: the strategy does not fit the problem.
    """
    loads = [load_of(pricer, way) for way in strategy.ways]
    each = [_alone(pricer, way, load, in_flight) for way, load in zip(strategy.ways, loads, strict=True)]
    use: defaultdict[str, float] = defaultdict(float)
    for rate, load in zip(each, loads, strict=True):
        for name, seconds in load.seconds.items():
            use[name] += rate * seconds
    binds = max(use, key=lambda name: use[name], default="")
    crowding = max(1.0, use[binds]) if binds else 1.0
    found = tuple(rate / crowding for rate in each)
    return StreamRate(sum(found), found, binds, min(1.0, use[binds] / crowding) if binds else 0.0)


def only_device(strategy: Strategy) -> int | None:
    """The device that computes everything in one piece; None where there are several, or several volumes."""
    if len(strategy.splits) > 1 or strategy.has_lanes:
        return None
    split = strategy.merged.splits[0]
    first = next((at for at, end in enumerate(split.bounds[1:]) if end), None)
    if first is None or split.bounds[first + 1] != split.rows or strategy.tail_device not in (None, first):
        return None
    return first


def _alone(pricer: Pricer, way: Strategy, load: Load, in_flight: int) -> float:
    if only_device(way) is not None:
        return 1 / load.most_s if load.most_s else inf
    timeline = pricer.timeline(way, frames=4 * in_flight + 8, in_flight=in_flight)
    return timeline.images_per_second


def _seconds(
    problem: PlanningProblem, moved: Counter[tuple[int, int]], busy: dict[int, float]
) -> dict[str, float]:
    network = problem.network
    found = {f"compute {problem.devices[device].name}": seconds for device, seconds in busy.items()}
    for (source, target), size in moved.items():
        for end, direction in ((source, "up"), (target, "down")):
            link = network.link(end)
            rate = link.uplink_mbps if direction == "up" else link.downlink_mbps
            name = "requester" if end == REQUESTER else problem.devices[end].name
            key = f"link {name} {direction}"
            found[key] = found.get(key, 0.0) + size / (125_000 * rate)
    found["access point"] = sum(moved.values()) / (125_000 * network.access_point_mbps)
    return found
