"""Families of networks that users will bring: split equals whole."""

from __future__ import annotations

import pytest

from tests.verify.networks import NETWORKS
from tests.verify.test_blocks import checked

SPLIT_SHARES = {
    "diffusion_unet": 0.5,  # attention
    "barrier_in_the_middle": 0.8,  # a matrix over rows
    "multilayer_perceptron": 0.0,
}
"""Lowest share of the work that must be split; 0.98 for all others."""


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str) -> None:
    model, outcome = checked(NETWORKS[name]().build(), peers=4, strategies=8, seed=1)
    assert outcome.split_share >= SPLIT_SHARES.get(name, 0.98), [n for n in model.graph.nodes if n.reason]


@pytest.mark.parametrize("peers", [1, 2, 7])
@pytest.mark.parametrize("name", ["unet", "mobilenet_v3", "shallow", "two_inputs"])
def test_network_on_other_numbers_of_peers(name: str, peers: int) -> None:
    checked(NETWORKS[name]().build(), peers=peers, strategies=4, seed=peers)
