"""How fast peers are, relative to each other, on the model at hand."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

from distredge.cluster.network import Link, Network
from distredge.cluster.synthetic import SyntheticDevice
from distredge.graph.model import Graph
from distredge.plan.compile import compile_plan
from distredge.plan.demand import Ownership, find_demand
from distredge.plan.options import DEFAULTS, PlanningOptions
from distredge.plan.policy import Device, PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.runtime.blobs import BlobSource
from distredge.runtime.client import Client
from distredge.runtime.engine import Array

SAME_SPEED = 1.2
"""Peers whose speeds differ by less count as equal: so much is noise where other things run too."""
SPENT_S, MOST_FRAMES, IN_FLIGHT = 0.3, 200, 3
_VOLUMES = 4
ASSUMED = Link(8000.0, 8000.0, 0.0, 5e-4)
"""Of links of which nothing is known. If messages cost nothing, policies exchange rows at every turn. This
also stands for what a peer needs between two parts: one number of its speed does not tell that either."""


FEATURE_WORK = 10.0
"""Multiply-accumulates of a map that one of a fully connected layer stands for: its weight is read from
memory for a single use. VGG-16's take 20 ms for 0.124 billion, its convolutions 267 ms for 15.3 billion."""


def even_strategy(graph: Graph, devices: int) -> Strategy:
    """Equal rows for all, in a few volumes of about equal work: so that every peer computes something
    of every depth, and halos stay small."""
    total = sum(node.macs for node in graph.nodes)
    cuts: list[str] = []
    done = 0
    cut_at = {graph.producer[name]: name for name in graph.cut_points}
    for i, node in enumerate(graph.nodes):
        done += node.macs
        if (
            i in cut_at
            and i not in graph.tail
            and done >= total * (len(cuts) + 1) / _VOLUMES
            and done < total
        ):
            cuts.append(cut_at[i])
    scheme = PartitionScheme(tuple(cuts[: _VOLUMES - 1]))
    even = [1.0] * devices
    return Strategy(
        scheme, tuple(SplitDecision.from_shares(volume.rows, even) for volume in find_volumes(graph, scheme))
    )


def computed_macs(graph: Graph, strategy: Strategy) -> list[float]:
    """Multiply-accumulates that each device computes in volumes, rows computed twice included; those of
    fully connected layers count for more. For all ways that frames may take together."""
    if strategy.beside:
        return [sum(each) for each in zip(*(computed_macs(graph, way) for way in strategy.ways), strict=True)]
    work = [0.0] * strategy.devices

    def height(name: str) -> int:
        return graph.tensors[name].rows

    for volume, decision in zip(find_volumes(graph, strategy.scheme), strategy.splits, strict=True):
        own = Ownership(graph, decision)
        for device in range(strategy.devices):
            demand = find_demand(graph, volume, own, height, device, lead=False)
            for i in demand.needs:
                name = next(filter(None, graph.nodes[i].outputs))
                rows = own.height(name)
                weight = FEATURE_WORK if graph.nodes[i].rule.kind == "features" else 1.0
                work[device] += (
                    weight * graph.nodes[i].macs * min(1.0, demand.makes[name].size / max(1, rows))
                )
    return work


def measure_speeds(
    client: Client, graph: Graph, weights_sha256: str, blobs: Sequence[BlobSource], feed: Mapping[str, Array]
) -> tuple[float, ...]:
    """Multiply-accumulates a second of each peer, all computing at once as they will later.

    Every peer times an even share of the model. Without any work, all count as equally fast.

    Raises:
        PeerError: a peer fails.
    """
    strategy = even_strategy(graph, len(client.names))
    plan = compile_plan(graph, strategy, client.names, model=weights_sha256)
    line = client.lines.add(blobs)
    client.lines.use(client.deploy(line, plan))
    client.collect_traces()
    start, done = time.monotonic(), 0
    # Several at once: a peer that may use a share of a processor is slow only when it always has work.
    pending = deque(client.lines.submit(line, feed) for _ in range(IN_FLIGHT))
    while pending:
        client.wait(pending.popleft())
        done += 1
        spent_s = time.monotonic() - start
        if done + len(pending) < MOST_FRAMES and spent_s < SPENT_S:
            pending.append(client.lines.submit(line, feed))
    in_volumes = {task.id for task in plan.tasks if task.volume < strategy.scheme.volumes}
    macs = computed_macs(graph, strategy)
    speeds: list[float] = []
    for source in client.collect_traces()[1:]:
        runs = [event for event in source.events if event.what == "run" and event.id in in_volumes]
        seconds = sum(event.end_s - event.start_s for event in runs)
        speeds.append(macs[source.device] * done / seconds if seconds else 0.0)
    client.lines.frames.times.clear()
    client.lines.end(line)
    return evened(speeds)


def evened(speeds: Sequence[float]) -> tuple[float, ...]:
    """Speeds without noise: equal if they nearly are; a peer that had nothing to do is like the average."""
    known = [speed for speed in speeds if speed > 0]
    average = sum(known) / len(known) if known else 1.0
    if not known or max(known) <= SAME_SPEED * min(known):
        return (average,) * len(speeds)
    return tuple(speed or average for speed in speeds)


def problem_of_speeds(
    graph: Graph,
    names: Sequence[str],
    speeds: Sequence[float],
    network: Network | None = None,
    options: PlanningOptions = DEFAULTS,
) -> PlanningProblem:
    """What a policy is asked when of each peer one number is known. Without lanes: what one more task
    costs is not known either.

    Args:
        speeds: multiply-accumulates a second.
        network: what is known of the links; None for nothing, as within one machine.
        options: how to plan.
    """
    stated = network or Network((Link(),) * len(names))
    devices = (
        Device(name, SyntheticDevice(f"measured {name}", 2 * speed, 0.0, 1, FEATURE_WORK).on(graph))
        for name, speed in zip(names, speeds, strict=True)
    )
    return PlanningProblem.of(graph, devices, stated.filled(ASSUMED), replace(options, overlap=False))
