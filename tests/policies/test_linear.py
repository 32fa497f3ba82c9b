"""The linear model and candidate cuts, against the exact backward pass."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from distredge.cluster.segment import node_rows
from distredge.graph.model import Graph
from distredge.plan.crossing import crossing
from distredge.plan.demand import Ownership, find_demand
from distredge.plan.strategy import PartitionScheme, SplitDecision
from distredge.plan.volumes import find_volumes
from policies.cuts import distinct_cuts, layer_cuts, narrow_cuts, stage_cuts
from policies.linear import LinearModel, cheapest_cuts
from policies.parts import fractions_of
from tests.policies.problems import branches, chain


def exact_work(graph: Graph, cuts: tuple[str, ...], shares: list[float]) -> np.ndarray:
    """Multiply-accumulates by volume and device."""
    found = []
    for volume in find_volumes(graph, PartitionScheme(cuts)):
        own = Ownership(graph, SplitDecision.from_shares(volume.rows, shares))
        row = []
        for device in range(len(shares)):
            demand = find_demand(graph, volume, own, lambda n: graph.tensors[n].rows, device, False)
            row.append(
                sum(
                    graph.nodes[i].macs * demand.makes[graph.nodes[i].outputs[0]].size / node_rows(graph, i)
                    for i in demand.needs
                )
            )
        found.append(row)
    return np.array(found)


@pytest.mark.parametrize("graph", [chain(rows=64, layers=6), branches(rows=64)])
def test_work_is_that_of_the_backward_pass(graph: Graph) -> None:
    cuts = layer_cuts(graph)
    model = LinearModel(graph, cuts)
    shares = [1.0, 2.0, 1.0]  # bounds on quarters: no rounding at these heights
    work, _ = model.by_volume(fractions_of(np.array([shares])))
    np.testing.assert_allclose(work[:, 0], exact_work(graph, cuts, shares))


@pytest.mark.parametrize("graph", [chain(rows=33, layers=6), branches(rows=30)])
def test_sweep_holds_every_scheme(graph: Graph) -> None:
    rng = np.random.default_rng(1)
    cuts = layer_cuts(graph)
    fractions = fractions_of(rng.exponential(size=(3, 4)))
    volumes = {v.end: v for v in LinearModel(graph, cuts).sweep(fractions)}
    for _ in range(10):
        chosen = [at for at in range(len(cuts)) if rng.random() < 0.5]
        work, received = LinearModel(graph, [cuts[at] for at in chosen]).by_volume(fractions)
        places = [0, *(at + 1 for at in chosen), len(cuts) + 1]
        for at, (start, end) in enumerate(pairwise(places)):
            np.testing.assert_allclose(volumes[end].work[start], work[at])
            np.testing.assert_allclose(volumes[end].received[start], received[at])


def test_dynamic_programming_is_exact() -> None:
    graph = chain(rows=32, layers=5)
    cuts = layer_cuts(graph)
    rng = np.random.default_rng(2)
    cost = {end: rng.random((end, 2)) for end in range(1, len(cuts) + 2)}
    found = cheapest_cuts(LinearModel(graph, cuts), np.array([[0.0, 1.0]] * 2), lambda v: cost[v.end])
    for split in range(2):
        best = min(
            ([at for at in range(len(cuts)) if mask >> at & 1] for mask in range(2 ** len(cuts))),
            key=lambda chosen: sum(
                cost[end][start, split]
                for start, end in zip(
                    [0, *(at + 1 for at in chosen)], [*(at + 1 for at in chosen), len(cuts) + 1], strict=True
                )
            ),
        )
        assert found[split] == tuple(cuts[at] for at in best)


def test_cuts_of_a_chain() -> None:
    graph = chain(rows=32, layers=4)  # conv relu, conv/2 relu, conv relu, conv/2 relu
    assert layer_cuts(graph) == narrow_cuts(graph) == ("t1", "t3", "t5")
    assert [graph.tensors[cut].rows for cut in stage_cuts(graph)] == [32]


def test_narrow_cuts_go_around_blocks() -> None:
    graph = branches()
    across = crossing(graph)
    assert all(across[cut][0] == 1 for cut in narrow_cuts(graph, limit=3))
    assert len(narrow_cuts(graph, limit=3)) == 3


def test_distinct_cuts_leave_out_the_front_of_an_activation() -> None:
    graph = branches()
    left_out = set(graph.cut_points) - set(distinct_cuts(graph))
    assert left_out
    for cut in left_out:
        (reader,) = graph.consumers[cut]
        assert graph.nodes[reader].op_type == "Relu"
        assert graph.nodes[reader].outputs[0] in distinct_cuts(graph)
