"""From a model and running peers to a plan: measures what the policy must know, and asks it."""

from __future__ import annotations

from collections.abc import Sequence

from distredge.cluster.hosts import Cluster
from distredge.cluster.load import cluster_times
from distredge.cluster.network import Network
from distredge.graph.importer import Model
from distredge.plan.compile import compile_plan
from distredge.plan.execution import ExecutionPlan
from distredge.plan.policy import Device, PlanningProblem, Policy
from distredge.runtime.blobs import BlobSource
from distredge.runtime.client import Client
from distredge.runtime.measure import measure_speeds, problem_of_speeds
from distredge.runtime.reference import random_feed


class Decider:
    """Asks a policy. Speeds are measured once, with the first model that comes.

    Args:
        policy: who decides.
        cluster: of the peers; None for local ones. Where all of its devices have profiles, these are used
            and nothing is measured.
        seed: of everything random.
        budget_s: how long the policy may think.
    """

    def __init__(self, policy: Policy, cluster: Cluster | None, seed: int, budget_s: float) -> None:
        self._policy, self._cluster, self._seed, self._budget_s = policy, cluster, seed, budget_s
        self._speeds: tuple[float, ...] | None = None

    def plan(self, client: Client, model: Model, blobs: Sequence[BlobSource]) -> ExecutionPlan:
        """The plan for this model over these peers.

        Raises:
            PolicyError: the policy cannot decide here.
            PeerError: a peer fails while it is measured.
        """
        strategy = self._policy.find_strategy(self._problem(client, model, blobs))
        return compile_plan(model.graph, strategy, client.names, model=model.weights_sha256)

    def _problem(self, client: Client, model: Model, blobs: Sequence[BlobSource]) -> PlanningProblem:
        graph, names, cluster = model.graph, client.names, self._cluster
        if cluster is not None and all(device.profile for device in cluster.devices):
            devices = tuple(
                Device(name, times) for name, times in zip(names, cluster_times(cluster, graph), strict=True)
            )
            return PlanningProblem(graph, devices, Network.of(cluster), self._seed, self._budget_s)
        if self._speeds is None:
            self._speeds = self._measured(client, model, blobs)
        network = None if cluster is None else Network.of(cluster)
        return problem_of_speeds(
            graph, names, self._speeds, network, seed=self._seed, budget_s=self._budget_s
        )

    def _measured(self, client: Client, model: Model, blobs: Sequence[BlobSource]) -> tuple[float, ...]:
        # `equal` asks for no speeds, and one peer needs none.
        if self._policy.name == "equal" or len(client.names) == 1:
            return (1e10,) * len(client.names)
        inputs = {name: model.graph.tensors[name] for name in model.graph.inputs}
        feed = random_feed({name: (t.shape, t.dtype) for name, t in inputs.items()}, self._seed)
        return measure_speeds(client, model.graph, model.weights_sha256, blobs, feed)
