"""Predicted beside measured: every policy's strategy on the running peers of a hosts file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from distredge.cluster.hosts import Cluster
from distredge.control.compare import Comparison, compare
from distredge.control.race import race
from distredge.graph.importer import Model
from distredge.plan.options import DEFAULTS, PlanningOptions
from distredge.plan.policy import Policy
from distredge.runtime.reference import random_feed
from distredge.runtime.session import InferenceSession


def compare_measured(
    model: Model,
    cluster: Cluster,
    policies: Sequence[Policy],
    options: PlanningOptions = DEFAULTS,
    *,
    rounds: int = 3,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Comparison]:
    """Lets policies decide by the cluster's profiles, then runs what they decided, interleaved.

    Every strategy gets the same frame.

    Args:
        model: the model.
        cluster: its devices have addresses, with peers running there, and profiles.
        policies: who decides.
        options: how to plan.
        rounds: how often each one's turn comes.
        progress: called with turns done and turns in all.

    Raises:
        HostsError, ProfileError: the cluster has no addresses or no profiles.
        PeerError: a peer does not answer, or fails.
    """
    graph = model.graph
    rows = list(compare({graph.name: graph}, [cluster], policies, options))
    strategies = {row.policy: row.strategy for row in rows if row.strategy is not None}
    shapes = {name: (graph.tensors[name].shape, graph.tensors[name].dtype) for name in graph.inputs}
    feed = random_feed(shapes, options.seed)
    rates: dict[str, float] = {}
    with (
        InferenceSession(model, hosts=cluster, policy="equal", wire=options.wire) as session,
        session.undisturbed(),
    ):
        raced = race(session, feed, strategies, rounds=rounds, progress=progress)
        for name, strategy in strategies.items():
            session.use(strategy)
            session.run(None, feed)
            frames = 2 * options.in_flight
            begin = time.perf_counter()
            for _ in session.stream((feed for _ in range(frames)), in_flight=options.in_flight):
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
