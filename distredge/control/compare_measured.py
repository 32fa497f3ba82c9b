"""Predicted beside measured: every policy's strategy on the running peers of a hosts file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from distredge.cluster.hosts import Cluster
from distredge.control.compare import Comparison, compare
from distredge.control.race import race
from distredge.graph.importer import Model
from distredge.plan.objective import LATENCY, Objective
from distredge.plan.policy import Policy
from distredge.plan.wire import EXACT
from distredge.runtime.reference import random_feed
from distredge.runtime.session import InferenceSession


def compare_measured(
    model: Model,
    cluster: Cluster,
    policies: Sequence[Policy],
    *,
    seed: int = 0,
    budget_s: float = 2.0,
    in_flight: int = 8,
    overlap: bool = True,
    objective: Objective = LATENCY,
    rounds: int = 3,
    wire: str = EXACT,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Comparison]:
    """Lets policies decide by the cluster's profiles, then runs what they decided, interleaved.

    Every strategy gets the same frame.

    Args:
        model: the model.
        cluster: its devices have addresses, with peers running there, and profiles.
        policies: who decides.
        seed, budget_s, in_flight, overlap, objective: as for `compare`.
        rounds: how often each one's turn comes.
        wire: how rows may be coded; see `distredge.plan.wire`.
        progress: called with turns done and turns in all.

    Raises:
        HostsError, ProfileError: the cluster has no addresses or no profiles.
        PeerError: a peer does not answer, or fails.
    """
    graph = model.graph
    compared = compare(
        {graph.name: graph},
        [cluster],
        policies,
        seed=seed,
        budget_s=budget_s,
        in_flight=in_flight,
        wire=wire,
        overlap=overlap,
        objective=objective,
    )
    rows = list(compared)
    strategies = {row.policy: row.strategy for row in rows if row.strategy is not None}
    shapes = {name: (graph.tensors[name].shape, graph.tensors[name].dtype) for name in graph.inputs}
    feed = random_feed(shapes, seed)
    rates: dict[str, float] = {}
    with InferenceSession(model, hosts=cluster, policy="equal", wire=wire) as session, session.undisturbed():
        raced = race(session, feed, strategies, rounds=rounds, progress=progress)
        for name, strategy in strategies.items():
            session.use(strategy)
            session.run(None, feed)
            frames = 2 * in_flight
            begin = time.perf_counter()
            for _ in session.stream((feed for _ in range(frames)), in_flight=in_flight):
                pass
            rates[name] = frames / (time.perf_counter() - begin)
    return [
        replace(
            row,
            measured_latency_s=raced[row.policy].latency_s,
            measured_images_per_second=rates[row.policy],
        )
        if row.policy in raced
        else row
        for row in rows
    ]
