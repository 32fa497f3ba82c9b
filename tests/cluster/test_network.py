"""Links and pair rates."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest

from distredge.cluster.catalog import cluster
from distredge.cluster.hosts import Cluster, Provider, Requester
from distredge.cluster.network import REQUESTER, Link, Network
from distredge.errors import HostsError

UNEQUAL = Network(
    links=(Link(200, 100, 0.002, 0.0001), Link(50, 80), Link()),
    requester=Link(1000, 500, 0.001),
    access_point_mbps=400,
)


@pytest.mark.parametrize(
    ("source", "target", "rate_mbps"),
    [
        (0, 1, 80),
        (1, 0, 50),
        (REQUESTER, 0, 100),
        (0, REQUESTER, 200),
        (2, REQUESTER, 400),
        (REQUESTER, 2, 400),
        (2, 2, inf),
    ],
)
def test_rate_is_the_smallest_of_three(source, target, rate_mbps):
    assert UNEQUAL.rate_mbps(source, target) == rate_mbps


def test_transfer_adds_both_ends():
    assert UNEQUAL.transfer_s(REQUESTER, 0, 1_000_000) == pytest.approx(0.08 + 0.002 + 0.001 + 0.0001)
    assert UNEQUAL.transfer_s(0, 0, 1_000_000) == 0
    assert Network((Link(), Link())).transfer_s(0, 1, 10**9) == 0


def test_matrices_agree_with_the_scalars():
    size = len(UNEQUAL.links) + 1
    assert UNEQUAL.seconds_per_byte.shape == (size, size)
    for a in (0, 1, 2, REQUESTER):
        for b in (0, 1, 2, REQUESTER):
            whole = UNEQUAL.overheads_s[a, b] + 12345 * UNEQUAL.seconds_per_byte[a, b]
            assert whole == pytest.approx(UNEQUAL.transfer_s(a, b, 12345))
    assert np.all(np.diag(UNEQUAL.seconds_per_byte) == 0)


def test_network_of_a_cluster():
    hosts = Cluster(
        "c",
        Requester(uplink_mbps=1000, downlink_mbps=900),
        (
            Provider("a", "h", (1, 2), slots=2, uplink_mbps=50, downlink_mbps=60, latency_ms=2),
            Provider("b", "g"),
        ),
        access_point_mbps=300,
    )
    a = Link(50, 60, 0.002)
    assert Network.of(hosts) == Network((a, a, Link()), Link(1000, 900), 300)


def test_network_of_the_grid():
    network = Network.of(cluster("DB-NC"))
    assert [network.rate_mbps(REQUESTER, d) for d in range(4)] == [50, 100, 200, 300]
    assert network.rate_mbps(3, 0) == 50


@pytest.mark.parametrize(
    "bad",
    [{"uplink_mbps": 0}, {"downlink_mbps": -1}, {"uplink_mbps": nan}, {"latency_s": -1}, {"fixed_s": inf}],
)
def test_bad_links_are_refused(bad):
    with pytest.raises(HostsError, match=f"a link's {next(iter(bad))} is"):
        Link(**bad)
