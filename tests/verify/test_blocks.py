"""Random small networks of every row-rule kind: split equals whole."""

from __future__ import annotations

import random

import pytest

from distredge.control.verify import Verification, verify
from distredge.graph import features
from distredge.graph.importer import Model, load_model
from tests.models import ModelBuilder
from tests.verify.blocks import BLOCKS, Block
from tests.verify.random_networks import fully_connected, network, random_network

SEEDS = range(3)


def checked(data: bytes, *, peers: int, strategies: int, seed: int) -> tuple[Model, Verification]:
    """Verifies a model; it must be ok."""
    model = load_model(data)
    outcome = verify(model, peers=peers, strategies=strategies, seed=seed)
    assert outcome.ok, outcome
    return model, outcome


def block_network(block: Block, seed: int) -> ModelBuilder:
    """The block alone, in one of its opsets; every third time with a batch of two."""
    opset = random.Random(f"{block.name}{seed}").randint(*block.opsets)
    return network([block.name], opset=opset, seed=seed, batch=1 + (seed % 3 == 2))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_block(block: Block, seed: int) -> None:
    _, outcome = checked(block_network(block, seed).build(), peers=4, strategies=4, seed=seed)
    if block.exact:
        assert outcome.max_rel_error < 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_layers_by_features(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "LARGE_BYTES", 0)
    net = fully_connected(seed, opset=11 if seed % 2 else 17)
    model, outcome = checked(net.build(), peers=2 + seed, strategies=6, seed=seed)
    assert [model.graph.nodes[i].op_type for i in sorted(model.graph.tail)] == ["Softmax"]
    assert sum(node.rule.kind == "features" for node in model.graph.nodes) == 4
    assert outcome.max_rel_error < 2e-6


def test_blocks_have_all_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rule class of `distredge.graph.rules` is in some block."""
    from distredge.graph import rules

    wanted = {name for name, kind in vars(rules).items() if isinstance(kind, type) and name.endswith("Rule")}
    found: set[str] = set()
    for name in ("conv", "conv_transpose", "excitation", "depth_to_space", "space_to_depth", "stepped_slice"):
        found |= rule_names(block_network(BLOCKS[name], 0).build())
    monkeypatch.setattr(features, "LARGE_BYTES", 0)
    found |= rule_names(fully_connected(0).build())
    for seed in range(4):
        found |= rule_names(block_network(BLOCKS["resize"], seed).build())
        found |= rule_names(block_network(BLOCKS["pad"], seed).build())
    assert found >= wanted


def rule_names(data: bytes) -> set[str]:
    return {type(node.rule).__name__ for node in load_model(data).graph.nodes}


@pytest.mark.parametrize("seed", range(60))
def test_random_network(seed: int) -> None:
    net, names = random_network(seed)
    model, outcome = checked(net.build(), peers=1 + seed % 5, strategies=4, seed=seed)
    assert outcome.strategies == 4, names
    if len(model.graph.cut_points) >= 2:
        assert outcome.deepest >= 3


@pytest.mark.parametrize(
    "seed",
    [
        139,  # a reduction whose input is also an output of the model
        377,  # a ceil_mode pool in front of an output: onnxruntime's shape inference and kernel disagree
    ],
)
def test_once_wrong(seed: int) -> None:
    net, _ = random_network(seed)
    checked(net.build(), peers=3, strategies=6, seed=seed)


def test_output_that_is_read_by_a_reduction_and_a_resize() -> None:
    """An output of the model whose shape its own readers' parts need."""
    net = ModelBuilder(12)
    x = net.relu(net.conv(net.input(1, 3, 20, 8), 4))
    pooled = net.add("GlobalAveragePool", x)
    odd = net.resize(x, 33, 8, mode="linear", coordinate_transformation_mode="align_corners")
    net.output(x, net.conv(pooled, 3, 1), odd)
    checked(net.build(), peers=3, strategies=6, seed=0)


def test_ceil_pool_right_before_the_outputs() -> None:
    net = ModelBuilder(13)
    x = net.conv(net.input(1, 3, 21, 7), 4)
    pooled = net.add("AveragePool", x, kernel_shape=[2, 2], strides=[3, 1], ceil_mode=1)
    assert net.shape(pooled)[2] == 7
    up = net.add("ConvTranspose", pooled, net.weights(4, 4, 3, 1), strides=[3, 1])
    net.output(pooled, up, net.conv(up, 3))
    model, _ = checked(net.build(), peers=3, strategies=6, seed=0)
    assert [model.graph.tensors[name].rows for name in model.graph.outputs] == [7, 21, 21]
