"""One plan on one cluster, simulated: what `distredge simulate` shows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from distredge.cluster.hosts import Cluster
from distredge.control.problem import planning_problem
from distredge.errors import StrategyError
from distredge.graph.model import Graph
from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.plan.options import PlanningOptions
from distredge.sim.bound import lower_bound
from distredge.sim.pricing import Pricer
from distredge.sim.replay import replay
from distredge.sim.tables import task_seconds
from distredge.sim.timeline import Timeline


@dataclass(frozen=True, slots=True)
class PeerUse:
    """One peer, seconds per frame; links: the share of the time that they carry at their full rate."""

    name: str
    busy_s: float
    waiting_s: float
    uplink_use: float
    downlink_use: float


@dataclass(frozen=True)
class Simulation:
    """What a plan does.

    Attributes:
        latency_s: mean over all frames, with `in_flight` of them under way.
        alone_s: of a frame with nothing else under way.
        images_per_second: in the steady state.
        bound_s: no strategy answers a frame alone sooner.
        binds: the device or link with most of the critical path of a frame alone.
        binds_share: how much of it.
        peers: the devices, and last the requester.
        timeline: everything that happened.
    """

    in_flight: int
    frames: int
    latency_s: float
    alone_s: float
    images_per_second: float
    bound_s: float
    binds: str
    binds_share: float
    peers: tuple[PeerUse, ...]
    timeline: Timeline

    @property
    def gap(self) -> float:
        """How far the latency of a frame alone lies above the bound: 0.1 for a tenth."""
        return self.alone_s / self.bound_s - 1 if self.bound_s else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values; times in seconds."""
        kept = ("in_flight", "frames", "latency_s", "alone_s", "images_per_second", "bound_s")
        row: dict[str, Any] = {name: getattr(self, name) for name in kept}
        row |= {"gap": self.gap, "binds": self.binds, "binds_share": self.binds_share}
        return {**row, "peers": [asdict(peer) for peer in self.peers]}


def simulate(
    plan: ExecutionPlan, graph: Graph, cluster: Cluster, *, in_flight: int = 1, frames: int | None = None
) -> Simulation:
    """Replays a plan on a cluster.

    Args:
        plan: compiled from `graph`.
        graph: the model.
        cluster: its devices are the plan's.
        in_flight: frames under way at a time.
        frames: in all; by default one, or enough for a steady rate.

    Raises:
        StrategyError: the plan is of another model, or for other devices.
        HostsError, ProfileError: a device's profile is missing or wrong.
    """
    if plan.graph != graph.digest:
        raise StrategyError(
            f"the plan is for another model ({plan.graph[:12]}) than {graph.name} ({graph.digest[:12]})"
        )
    if plan.devices != tuple(cluster.names):
        raise StrategyError(
            f"the plan is for the devices {', '.join(plan.devices)}; {cluster.name} has "
            f"{', '.join(cluster.names)}"
        )
    problem = planning_problem(graph, cluster, PlanningOptions(wire=plan.wire))
    seconds = task_seconds(graph, plan, Pricer(problem).times)
    count = frames or (1 if in_flight == 1 else 4 * in_flight + 8)
    alone = replay(plan, seconds, problem.network)
    found = replay(plan, seconds, problem.network, frames=count, in_flight=in_flight)
    binding = alone.binding()
    return Simulation(
        in_flight,
        count,
        found.latency_s,
        alone.latency_s,
        found.images_per_second,
        lower_bound(problem),
        binding.most,
        binding.share,
        tuple(_use(found, peer, problem.network, count) for peer in (*range(len(plan.devices)), REQUESTER)),
        found,
    )


def _use(timeline: Timeline, peer: int, network: Any, frames: int) -> PeerUse:
    use, name = timeline.link_use(network), timeline.name(peer)
    return PeerUse(
        name,
        timeline.busy_s(peer) / frames,
        timeline.waiting_s(peer) / frames,
        use.get(f"{name} up", 0.0),
        use.get(f"{name} down", 0.0),
    )
