"""From a model and running peers to a plan: measures what the policy must know, and asks it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf

from distredge.cluster.hosts import Cluster
from distredge.cluster.load import cluster_times
from distredge.cluster.network import Network
from distredge.graph.importer import Model
from distredge.plan.compile import compile_plan
from distredge.plan.execution import ExecutionPlan
from distredge.plan.options import PlanningOptions
from distredge.plan.policy import Device, PlanningProblem, Policy, decide
from distredge.runtime.blobs import BlobSource
from distredge.runtime.client import Client
from distredge.runtime.measure import evened, measure_speeds, problem_of_speeds
from distredge.runtime.reference import random_feed

_LOG = logging.getLogger(__name__)


class Decider:
    """Asks a policy. Speeds are measured once, with the first model that comes.

    Args:
        policy: who decides.
        cluster: of the peers; None for local ones. Where all of its devices have profiles, these are used
            and nothing is measured.
        options: how to plan.
    """

    def __init__(self, policy: Policy, cluster: Cluster | None, options: PlanningOptions) -> None:
        self._policy, self._cluster, self._options = policy, cluster, options
        self._speeds: tuple[float, ...] | None = None
        self._names: tuple[str, ...] = ()

    def plan(self, client: Client, model: Model, blobs: Sequence[BlobSource]) -> ExecutionPlan:
        """The plan for this model over all peers; measures them first, if that is needed.

        Raises:
            PolicyError: the policy cannot decide here.
            PeerError: a peer fails while it is measured.
        """
        self._names = client.names
        if self._speeds is None and not self._has_profiles:
            self._speeds = self._measured(client, model, blobs)
        return self.plan_for(model, range(len(client.names)))

    def expect(self, names: Sequence[str], speeds: Sequence[float]) -> None:
        """Takes these as the peers' speeds, if none are known: where a plan was given."""
        self._names = tuple(names)
        if self._speeds is None and not self._has_profiles:
            self._speeds = evened(speeds)

    def plan_for(self, model: Model, members: Iterable[int], budget_s: float = inf) -> ExecutionPlan:
        """The plan for some of the peers; the others have nothing to do. Speaks to no peer.

        Args:
            model: the model.
            members: numbers of peers.
            budget_s: how long to think at most.

        Raises:
            PolicyError: the policy cannot decide here.
        """
        chosen = sorted(members)
        whole = self._problem(model)
        problem = replace(
            whole,
            devices=tuple(whole.devices[at] for at in chosen),
            network=whole.network.of_members(chosen),
            budget_s=min(whole.budget_s, budget_s),
        )
        decision = decide(problem, self._policy)
        if decision.rates and max(decision.rates.values()) < problem.objective.rate:
            _LOG.warning("%s", decision.why)
        strategy = decision.strategy.embedded(chosen, len(self._names))
        return compile_plan(model.graph, strategy, self._names, model=model.weights_sha256, wire=problem.wire)

    @property
    def _has_profiles(self) -> bool:
        return self._cluster is not None and all(device.profile for device in self._cluster.devices)

    def _problem(self, model: Model) -> PlanningProblem:
        graph, cluster = model.graph, self._cluster
        if cluster is not None and self._has_profiles:
            times = cluster_times(cluster, graph)
            devices = (Device(name, each) for name, each in zip(self._names, times, strict=True))
            return PlanningProblem.of(graph, devices, Network.of(cluster), self._options)
        assert self._speeds is not None
        network = None if cluster is None else Network.of(cluster)
        return problem_of_speeds(graph, self._names, self._speeds, network, self._options)

    def _measured(self, client: Client, model: Model, blobs: Sequence[BlobSource]) -> tuple[float, ...]:
        # `equal` asks for no speeds; one peer needs none, nor does a model of which nothing can be split.
        whole = not any(model.graph.is_split(i) for i in range(len(model.graph.nodes)))
        if self._policy.name == "equal" or len(client.names) == 1 or whole:
            return (1e10,) * len(client.names)
        inputs = {name: model.graph.tensors[name] for name in model.graph.inputs}
        feed = random_feed({name: (t.shape, t.dtype) for name, t in inputs.items()}, self._options.seed)
        return measure_speeds(client, model.graph, model.weights_sha256, blobs, feed)
