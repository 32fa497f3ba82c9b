"""How rows are shared out: the one rounding rule, and shares that become rows."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distredge.graph.rows import Rows
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy, are_lanes, run_order

decisions = st.lists(st.integers(0, 400), min_size=1, max_size=6).map(
    lambda cuts: SplitDecision((0, *sorted(cuts)[:-1], max(cuts) or 1))
)


@given(decisions, st.integers(1, 500), st.integers(1, 40))
def test_scaled_covers_exactly_once(decision: SplitDecision, rows: int, quantum: int) -> None:
    scaled = decision.scaled(rows, quantum)
    assert scaled.is_valid
    assert scaled.parts == decision.parts
    assert scaled.rows == rows
    assert sum(scaled.part(i).size for i in range(scaled.parts)) == rows


@given(decisions, st.integers(1, 500), st.integers(1, 40))
def test_scaled_rounds_to_the_nearest_multiple_and_halves_upwards(
    decision: SplitDecision, rows: int, quantum: int
) -> None:
    for old, new in zip(decision.bounds, decision.scaled(rows, quantum).bounds, strict=True):
        exact = Fraction(old * rows, decision.rows)
        if old == decision.rows:
            assert new == rows
            continue
        below = exact // quantum * quantum
        nearest = below if exact - below < Fraction(quantum, 2) else below + quantum
        assert new == min(rows, nearest)


@given(decisions, st.integers(1, 500), st.integers(1, 40))
def test_parts_without_rows_stay_without(decision: SplitDecision, rows: int, quantum: int) -> None:
    scaled = decision.scaled(rows, quantum)
    for device in range(decision.parts):
        if not decision.part(device):
            assert not scaled.part(device)


@given(decisions)
def test_scaled_to_its_own_height_is_itself(decision: SplitDecision) -> None:
    assert decision.scaled(decision.rows) == decision


@given(decisions, st.integers(1, 10))
def test_whole_multiples_are_exact(decision: SplitDecision, factor: int) -> None:
    scaled = decision.scaled(decision.rows * factor)
    assert scaled.bounds == tuple(b * factor for b in decision.bounds)
    assert scaled.scaled(decision.rows) == decision


@given(st.integers(0, 400), st.lists(st.floats(0, 1e6), min_size=1, max_size=8).filter(any))
def test_from_shares(rows: int, shares: list[float]) -> None:
    decision = SplitDecision.from_shares(rows, shares)
    assert decision.is_valid
    assert decision.rows == rows
    assert decision.parts == len(shares)
    for device, share in enumerate(shares):
        assert abs(decision.part(device).size - rows * share / sum(shares)) <= 1.001
        if share == 0:
            assert not decision.part(device)


@pytest.mark.parametrize(
    ("bounds", "rows", "quantum", "expected"),
    [
        ((0, 3, 8), 8, 1, (0, 3, 8)),
        ((0, 3, 8), 16, 1, (0, 6, 16)),
        ((0, 3, 8), 4, 1, (0, 2, 4)),  # 1.5 goes up
        ((0, 3, 8), 13, 1, (0, 5, 13)),  # 4.875
        ((0, 3, 8), 3, 1, (0, 1, 3)),  # 1.125
        ((0, 3, 8), 8, 2, (0, 4, 8)),  # 3 is half-way
        ((0, 5, 8), 8, 4, (0, 4, 8)),
        ((0, 6, 8), 9, 4, (0, 8, 9)),  # 6.75; the last bound need not be a multiple
        ((0, 0, 8, 8), 5, 1, (0, 0, 5, 5)),
        ((0, 7, 8), 2, 1, (0, 2, 2)),  # the last part loses its row
    ],
)
def test_examples(bounds: tuple[int, ...], rows: int, quantum: int, expected: tuple[int, ...]) -> None:
    assert SplitDecision(bounds).scaled(rows, quantum).bounds == expected


def test_parts() -> None:
    decision = SplitDecision((0, 3, 3, 8))
    assert [decision.part(i) for i in range(3)] == [Rows(0, 3), Rows(3, 3), Rows(3, 8)]
    assert (decision.parts, decision.rows) == (3, 8)
    assert all(a.stop == b.start for a, b in pairwise(decision.part(i) for i in range(3)))


@pytest.mark.parametrize("bounds", [(1, 8), (0, 5, 4, 8), (-1, 8)])
def test_invalid_bounds(bounds: tuple[int, ...]) -> None:
    assert not SplitDecision(bounds).is_valid


def test_scheme() -> None:
    assert PartitionScheme().volumes == 1
    assert PartitionScheme(("a", "b")).volumes == 3


def test_lanes_of_one_device_are_its_rows() -> None:
    splits = (SplitDecision((0, 1, 3, 5, 8)), SplitDecision((0, 0, 2, 2, 4)))
    strategy = Strategy(PartitionScheme(), splits, 1, (0, 0, 1, 1))
    assert strategy.devices == 2
    assert strategy.has_lanes
    assert [split.bounds for split in strategy.merged.splits] == [(0, 3, 8), (0, 2, 4)]
    assert strategy.merged.tail_device == 1
    again = strategy.merged.with_lanes((0, 0, 0, 1))
    assert not again.has_lanes
    assert [split.bounds for split in again.splits] == [(0, 0, 3, 3, 8), (0, 0, 2, 2, 4)]
    assert again.merged == strategy.merged


def test_joined_lanes_are_the_last_one_to_run() -> None:
    splits = SplitDecision((0, 1, 3, 5, 8, 9)), SplitDecision((0, 1, 2, 3, 4, 4))
    strategy = Strategy(PartitionScheme(("a",)), splits, 1, (0, 0, 0, 1, 1))
    joined = strategy.joined([0])
    assert joined.splits == (SplitDecision((0, 0, 5, 5, 5, 9)), splits[1])
    assert joined.splits[0] == strategy.merged.with_lanes(strategy.lanes).splits[0]
    assert joined.merged == strategy.merged


def test_lanes_at_borders_run_first() -> None:
    assert run_order((0, 0, 0, 0, 1, 2, 2)) == (0, 3, 1, 2, 4, 5, 6)


@pytest.mark.parametrize(
    ("lanes", "right"),
    [((), True), ((0, 0, 1), True), ((0, 1, 0), False), ((0, 0), False), ((0, 1, 2), False)],
)
def test_each_device_has_lanes_in_order(lanes: tuple[int, ...], right: bool) -> None:
    assert are_lanes(lanes, 2) == right


def test_lanes_for_some_devices_among_all() -> None:
    strategy = Strategy(PartitionScheme(), (SplitDecision((0, 3, 4, 8)),), 1, (0, 0, 1))
    wide = strategy.embedded((1, 3), 4)
    assert wide.lanes == (0, 1, 1, 2, 3)
    assert wide.splits[0].bounds == (0, 0, 3, 4, 4, 8)
    assert wide.merged == strategy.merged.embedded((1, 3), 4)


def test_a_decision_for_some_devices_among_all() -> None:
    strategy = Strategy(PartitionScheme(), (SplitDecision((0, 3, 8)), SplitDecision((0, 0, 4))), 1)
    wide = strategy.embedded((1, 3), 5)
    assert [split.bounds for split in wide.splits] == [(0, 0, 3, 3, 8, 8), (0, 0, 0, 0, 4, 4)]
    assert wide.tail_device == 3
    assert strategy.embedded((0, 1), 2) == strategy
