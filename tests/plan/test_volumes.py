"""Layer-volumes of chains and branches: which nodes, what crosses their borders, whose rows are counted."""

from __future__ import annotations

import random

import pytest

from distredge.errors import StrategyError
from distredge.plan.demand import Ownership
from distredge.plan.draw import random_scheme, random_split
from distredge.plan.strategy import PartitionScheme, SplitDecision
from distredge.plan.volumes import find_volumes
from tests.plan.support import NAMES, graph


def test_no_cut_is_one_volume() -> None:
    g = graph("branches")
    (volume,) = find_volumes(g, PartitionScheme())
    assert volume.nodes == tuple(range(len(g.nodes)))
    assert volume.inputs == g.inputs
    assert set(volume.outputs) == set(g.outputs)
    assert (volume.reference, volume.rows) == ("concat10", 20)
    assert volume.syncs == ()


def test_cut_inside_branches() -> None:
    """Behind the first convolution of the left branch: the stem crosses the cut too."""
    g = graph("branches")
    first, second = find_volumes(g, PartitionScheme(("conv2",)))
    assert first.outputs == ("relu1", "conv2")
    assert second.inputs == ("conv2", "relu1")
    assert first.nodes + second.nodes == tuple(range(len(g.nodes)))


def test_output_in_the_middle_is_an_output_of_its_volume() -> None:
    g = graph("branches")
    volumes = find_volumes(g, PartitionScheme(("relu7", "maxpool8")))
    assert [v.outputs for v in volumes] == [("relu1", "relu7"), ("maxpool8",), ("conv9", "concat10")]
    assert [v.rows for v in volumes] == [20, 10, 20]


def test_reduction_inside() -> None:
    """Partial sums are exchanged inside their volume; behind the last rows comes the tail."""
    g = graph("excited")
    volumes = find_volumes(g, PartitionScheme())
    assert len(volumes) == 1
    assert all(name.endswith(".partials") for name in volumes[0].syncs)
    assert volumes[0].syncs
    members = set(volumes[0].nodes)
    assert members.isdisjoint(g.tail)
    assert members | g.tail == set(range(len(g.nodes)))


def test_volume_that_only_reduces_counts_the_rows_that_it_reduces() -> None:
    g = graph("excited")
    last = find_volumes(g, PartitionScheme((g.cut_points[-1],)))[-1]
    assert last.reference is not None
    assert last.rows == g.tensors[last.reference].rows == 18


@pytest.mark.parametrize(
    "cuts", [("no such tensor",), ("x0",), ("no_such_cut",), ("relu3", "conv2"), ("conv2", "conv2")]
)
def test_cuts_that_are_none(cuts: tuple[str, ...]) -> None:
    with pytest.raises(StrategyError, match="cut"):
        find_volumes(graph("branches"), PartitionScheme(cuts))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(6))
def test_volumes_are_a_partition(name: str, seed: int) -> None:
    """Each node is in one volume or in the tail; all that a volume reads comes from before it."""
    rng = random.Random(seed)
    g = graph(name)
    volumes = find_volumes(g, random_scheme(g, rng.randint(0, 6), rng))
    body = [i for volume in volumes for i in volume.nodes]
    assert body == sorted(set(body))
    assert set(body) == set(range(len(g.nodes))) - g.tail
    known = set(g.inputs)
    for volume in volumes:
        assert set(volume.inputs) <= known
        made = {out for i in volume.nodes for out in g.nodes[i].outputs}
        assert set(volume.outputs) <= made
        known |= set(volume.outputs)
        for i in volume.nodes:
            for read in g.nodes[i].inputs:
                assert not read or g.tensors[read].constant or read in made or read in volume.inputs
        if volume.reference:
            tensor = g.tensors[volume.reference]
            assert (tensor.row_axis is not None, tensor.rows) == (True, volume.rows)
    assert set(g.outputs) <= known | {out for i in g.tail for out in g.nodes[i].outputs}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(6))
def test_every_row_is_owned_once(name: str, seed: int) -> None:
    rng = random.Random(seed)
    g = graph(name)
    devices = rng.randint(1, 7)
    for volume in find_volumes(g, random_scheme(g, rng.randint(0, 4), rng)):
        own = Ownership(g, random_split(volume.rows, devices, rng))
        for i in volume.nodes:
            for out in g.nodes[i].outputs:
                if out and g.tensors[out].row_axis is not None:
                    rows = [row for device in range(devices) for row in range(*own.rows(out, device))]
                    assert rows == list(range(own.height(out)))


def test_partials_have_a_row_per_contributor() -> None:
    g = graph("excited")
    partials = next(name for name, tensor in g.tensors.items() if tensor.partial_of)
    own = Ownership(g, SplitDecision((0, 5, 5, 17, 18)))
    assert own.height(partials) == 3
    assert [tuple(own.rows(partials, device)) for device in range(4)] == [(0, 1), (0, 0), (1, 2), (2, 3)]
