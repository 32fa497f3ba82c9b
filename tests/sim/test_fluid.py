"""How links are shared."""

from __future__ import annotations

import random
from math import inf

import pytest

from distredge.cluster.network import Link, Network
from distredge.sim.fluid import FASTEST, FluidNetwork, fair_rates

MB = 125_000  # bytes a second of 1 Mbit/s


@pytest.mark.parametrize(
    ("flows", "expected"),
    [
        ([(0, 1)], [100]),
        ([(0, 1), (0, 2)], [50, 50]),
        ([(0, 1), (2, 1)], [50, 50]),
        ([(0, 1), (1, 0)], [100, 100]),  # the two directions of a link are apart
        ([(0, 1), (0, 3)], [90, 10]),  # 3's downlink has 10: the rest is 1's
        ([(0, 1), (0, 2), (3, 2)], [50, 50, 10]),
        ([(-1, 0), (-1, 1), (-1, 3)], [100, 100, 10]),  # the requester's uplink has 1000
    ],
)
def test_rates(flows: list[tuple[int, int]], expected: list[float]) -> None:
    rates = [100.0 * MB] * 3 + [10.0 * MB, 1000.0 * MB]
    assert fair_rates(flows, rates, rates, FASTEST) == pytest.approx([e * MB for e in expected])


def test_an_access_point_is_shared_by_all() -> None:
    rates = [100.0] * 4
    assert fair_rates([(0, 1), (2, 3)], rates, rates, 120.0) == pytest.approx([60.0, 60.0])


@pytest.mark.parametrize("seed", range(30))
def test_rates_are_max_min_fair(seed: int) -> None:
    """Each flow has a full link on which none is faster; no link carries more than it can."""
    rng = random.Random(seed)
    up, down = ([rng.choice((1.0, 2.0, 5.0)) for _ in range(6)] for _ in range(2))
    pairs = [(a, b) for a in range(6) for b in range(6) if a != b]
    flows = rng.sample(pairs, rng.randint(1, 20))
    total = rng.choice((FASTEST, 6.0))
    rates = fair_rates(flows, up, down, total)
    links = [[i for i, f in enumerate(flows) if f[0] == n] for n in range(6)]
    links += [[i for i, f in enumerate(flows) if f[1] == n] for n in range(6)] + [list(range(len(flows)))]
    limits = [*up, *down, total]
    full = []
    for members, limit in zip(links, limits, strict=True):
        used = sum(rates[i] for i in members)
        assert used <= limit * (1 + 1e-9)
        if used >= limit * (1 - 1e-9):
            full.append(members)
    for i, rate in enumerate(rates):
        assert any(i in members and rate >= max(rates[j] for j in members) - 1e-9 for members in full)


def test_a_connection_sends_in_order_and_others_do_not_wait() -> None:
    net: FluidNetwork[str] = FluidNetwork(Network((Link(80, 80), Link(80, 80), Link(8, 8))))
    net.send(0.0, (0, 2), 1_000_000, "slow")  # at 1 MB/s
    net.send(0.0, (0, 2), 1_000_000, "behind it")
    net.send(0.0, (0, 1), 9_000_000, "fast")  # at 9 MB/s, what is left of 10
    assert net.next_end(0.0) == pytest.approx(1.0)
    assert {sent.message for sent in net.finish(net.next_end(0.0))} == {"slow", "fast"}
    assert net.next_end(1.0) == pytest.approx(2.0)
    (sent,) = net.finish(net.next_end(1.0))
    assert (sent.message, sent.start_s) == ("behind it", pytest.approx(1.0))
    assert net.next_end(2.0) == inf


def test_what_goes_to_a_dead_peer_is_dropped() -> None:
    net: FluidNetwork[str] = FluidNetwork(Network((Link(8, 8), Link(8, 8))))
    net.send(0.0, (0, 1), 1_000_000, "lost")
    net.next_end(0.0)
    net.drop(1)
    assert net.next_end(0.5) == inf
