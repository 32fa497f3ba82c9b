"""Before buying or wiring anything: do these devices together beat the best one, what binds, what would help.

Every answer is a plan's simulated price: the plan that `auto` finds for the cluster as it is, and for the
cluster with one thing changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any

from distredge.cluster.hosts import Cluster
from distredge.cluster.network import Link, Network
from distredge.cluster.synthetic import SyntheticTimes
from distredge.control.problem import planning_problem
from distredge.graph.model import Graph
from distredge.plan.options import DEFAULTS, PlanningOptions
from distredge.plan.policy import PlanningProblem, decide
from distredge.sim.pricing import Pricer
from distredge.sim.rates import stream_rate
from distredge.sim.timeline import Timeline

FASTER = 2.0
"""How much faster a link gets in `changes`."""
WORTH = 1.02
"""A gain below this is none: plans and measurements differ by more."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a cluster does with a model, simulated.

    Attributes:
        latency_s: of one frame alone.
        images_per_second: of a stream.
        latency_binds: the device or link with most of the frame's critical path, and `latency_share` of it.
        stream_binds: the device or link that is busy longest, and `stream_share`, how much of the time.
        devices: that compute something of a single frame.
        replicated: the stream's frames are dealt out whole, to devices or to groups of them.
    """

    latency_s: float
    images_per_second: float
    latency_binds: str
    latency_share: float
    stream_binds: str
    stream_share: float
    devices: tuple[str, ...]
    replicated: bool


@dataclass(frozen=True, slots=True)
class Change:
    """One thing bought or rewired, and what the cluster does then."""

    what: str
    latency_s: float
    images_per_second: float


@dataclass(frozen=True)
class Advice:
    """The answer.

    Attributes:
        best: the device that is fastest alone.
        alone: what it does alone.
        together: what all of them do.
        changes: what would be with one thing changed, in the order of what it brings.
        measured, synthetic: names of the devices with profiles of either kind.
    """

    model: str
    cluster: str
    best: str
    alone: Price
    together: Price
    changes: tuple[Change, ...]
    measured: tuple[str, ...]
    synthetic: tuple[str, ...]

    @property
    def latency_gain(self) -> float:
        """How many times sooner a frame is answered than by the best device alone."""
        return self.alone.latency_s / self.together.latency_s

    @property
    def stream_gain(self) -> float:
        """How many times as many images a second."""
        return self.together.images_per_second / self.alone.images_per_second

    def to_json(self) -> dict[str, Any]:
        """Plain values, with both gains."""
        return asdict(self) | {"latency_gain": self.latency_gain, "stream_gain": self.stream_gain}


def advise(
    graph: Graph,
    cluster: Cluster,
    options: PlanningOptions = DEFAULTS,
    *,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Advice:
    """Answers for one model and cluster.

    Args:
        graph: the model.
        cluster: its devices have profiles, measured or synthetic.
        options: how to plan. Each change gets half of the budget; they are in the order of what they bring
            for the objective.
        progress: called with plans made and plans in all.

    Raises:
        HostsError, ProfileError: a device's profile is missing or wrong.
        PolicyError: no plan can be found.
    """
    problem, in_flight = planning_problem(graph, cluster, options), options.in_flight
    wants_rate = options.objective.wants_rate
    changed = list(changes(problem))
    of = len(changed) + 2
    alone = _priced(problem, "offload", in_flight, stream_too=False)
    progress(1, of)
    together = _better(_priced(problem, "auto", in_flight), alone)
    progress(2, of)
    found = []
    for at, (what, other) in enumerate(changed):
        price = _priced(replace(other, budget_s=options.budget_s / 2), "auto", in_flight)
        # More cannot be worse: what was planned before still fits, however short the search.
        latency_s = min(price.latency_s, together.latency_s)
        found.append(Change(what, latency_s, max(price.images_per_second, together.images_per_second)))
        progress(at + 3, of)
    synthetic = tuple(d.name for d in problem.devices if isinstance(d.times, SyntheticTimes))
    return Advice(
        graph.name,
        cluster.name,
        alone.devices[0],
        alone,
        together,
        tuple(sorted(found, key=lambda c: -c.images_per_second if wants_rate else c.latency_s)),
        tuple(device.name for device in problem.devices if device.name not in synthetic),
        synthetic,
    )


def changes(problem: PlanningProblem) -> Iterator[tuple[str, PlanningProblem]]:
    """The problem with one device more, of each kind there is, and with faster links."""
    network = problem.network
    seen: list[tuple[object, Link]] = []
    for at, device in enumerate(problem.devices):
        kind = (device.times, network.links[at])
        if any(times is kind[0] and link == kind[1] for times, link in seen):
            continue
        seen.append(kind)
        more = replace(device, name=f"{device.name}+")
        yield (
            f"one more like {device.name}",
            replace(
                problem,
                devices=(*problem.devices, more),
                network=replace(network, links=(*network.links, kind[1])),
            ),
        )
    times = f"{FASTER:g} times as fast"
    if len(network.links) > 1 and any(_is_limited(link) for link in network.links):
        links = tuple(_faster(link) for link in network.links)
        yield f"all devices' links {times}", replace(problem, network=replace(network, links=links))
    if _is_limited(network.requester):
        faster = replace(network, requester=_faster(network.requester))
        yield f"the requester's link {times}", replace(problem, network=faster)
    if isfinite(network.access_point_mbps):
        faster = replace(network, access_point_mbps=FASTER * network.access_point_mbps)
        yield f"the access point {times}", replace(problem, network=faster)


def _is_limited(link: Link) -> bool:
    return isfinite(link.uplink_mbps) or isfinite(link.downlink_mbps)


def _faster(link: Link) -> Link:
    return replace(link, uplink_mbps=FASTER * link.uplink_mbps, downlink_mbps=FASTER * link.downlink_mbps)


def _priced(problem: PlanningProblem, policy: str, in_flight: int, *, stream_too: bool = True) -> Price:
    """What a policy's plan does; a stream may also be dealt out as whole frames."""
    pricer = Pricer(problem)
    strategy = decide(problem, policy).strategy
    alone = pricer.timeline(strategy)
    stream = pricer.timeline(strategy, frames=4 * in_flight + 8, in_flight=in_flight)
    rate, binds, share = stream.images_per_second, *_busiest(stream, problem.network)
    is_dealt = False
    for other in (strategy, decide(problem, "replicate").strategy) if stream_too else ():
        dealt = stream_rate(pricer, other)
        if other.beside and dealt.images_per_second > rate:
            rate, binds, share, is_dealt = dealt.images_per_second, dealt.binds, dealt.share, True
    binding = alone.binding()
    return Price(
        alone.latency_s,
        rate,
        binding.most,
        binding.share,
        binds,
        share,
        _used(alone),
        is_dealt,
    )


def _better(price: Price, alone: Price) -> Price:
    """The best device alone is one of the choices, also for the stream."""
    if alone.images_per_second > price.images_per_second:
        kept = ("images_per_second", "stream_binds", "stream_share", "replicated")
        return replace(price, **{name: getattr(alone, name) for name in kept})
    return price


def _used(timeline: Timeline) -> tuple[str, ...]:
    used = {task.device for task in timeline.plan.tasks}
    return tuple(name for at, name in enumerate(timeline.plan.devices) if at in used)


def _busiest(stream: Timeline, network: Network) -> tuple[str, float]:
    """The device or link that is busy longest in a stream, and for how much of the time."""
    spent_s = stream.makespan_s
    use = {f"compute {name}": stream.busy_s(at) / spent_s for at, name in enumerate(stream.plan.devices)}
    use |= {f"link {name}": share for name, share in stream.link_use(network).items()}
    carried = sum(transfer.bytes for transfer in stream.transfers)
    use["access point"] = carried / (network.access_point_mbps * 125_000 * spent_s)
    most = max(use, key=lambda name: use[name])
    return most, min(1.0, use[most])
