"""compile_plan: rows that a device computes in several lanes."""

from __future__ import annotations

import random

import pytest

from distredge.errors import StrategyError
from distredge.graph.rows import Rows
from distredge.plan.compile import compile_plan
from distredge.plan.draw import random_strategy
from distredge.plan.execution import Piece
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from tests.plan.support import NAMES, graph, names, sent


def test_lanes_of_a_device() -> None:
    """The lane at the border is computed first, and sends alone what the neighbour waits for; what lanes of
    one device need of each other is no transfer."""
    g, scheme = graph("chain"), PartitionScheme(("relu5",))
    plain = Strategy(scheme, (SplitDecision((0, 9, 16)), SplitDecision((0, 4, 8))))
    lanes = (0, 0, 0, 1)
    splits = SplitDecision((0, 0, 5, 9, 16)), SplitDecision((0, 0, 3, 4, 8))
    plan = compile_plan(g, Strategy(scheme, splits, lanes=lanes), names(2))
    plan.validate()
    owned = [(t.device, t.volume, *t.outputs[0].owned) for t in plan.tasks]
    assert owned == [(0, 0, 5, 9), (0, 0, 0, 5), (1, 0, 9, 16), (0, 1, 3, 4), (0, 1, 0, 3), (1, 1, 4, 8)]
    assert sent(plan, 0, 1) == sent(compile_plan(g, plain, names(2)), 0, 1) == [("relu5", 6, 9)]
    assert {t.task for t in plan.transfers if t.source == 0 and t.target == 1} == {0}
    border, inner = Piece(Rows(5, 9), task=0), Piece(Rows(4, 5), task=1)
    assert plan.tasks[3].inputs[0].pieces == (inner, border, Piece(Rows(9, 10), transfer=3))
    assert plan.tasks[4].inputs[0].pieces == (Piece(Rows(0, 5), task=1), Piece(Rows(5, 8), task=0))


@pytest.mark.parametrize("name", NAMES)
def test_random_lanes_make_whole_plans(name: str) -> None:
    rng = random.Random(name)
    for cuts in range(4):
        strategy = random_strategy(graph(name), 3, cuts, rng, most_lanes=3)
        plan = compile_plan(graph(name), strategy, names(3), model="m")
        plan.validate()
        assert all(t.source != t.target for t in plan.transfers)


def test_a_device_adds_up_all_its_rows_before_it_sends_the_sum() -> None:
    g = graph("excited")
    strategy = Strategy(PartitionScheme(), (SplitDecision((0, 4, 8, 12, 18)),), lanes=(0, 0, 1, 1))
    plan, plain = (compile_plan(g, each, names(2)) for each in (strategy, strategy.merged))
    sums, expected = (
        [(t.tensor, t.rows, t.source, t.target) for t in each.transfers if g.tensors[t.tensor].partial_of]
        for each in (plan, plain)
    )
    assert sums == expected
    assert len(sums) == 3  # both ways for the one inside, to the tail's device for the last
    assert plan.strategy.splits[0].bounds == (0, 0, 8, 8, 18)


def test_lanes_that_do_not_fit_are_refused() -> None:
    for lanes, why in (
        ((0, 1), "3 parts, there are 2 lanes"),
        ((0, 0, 0), "in order"),
        ((1, 0, 1), "in order"),
    ):
        with pytest.raises(StrategyError, match=why):
            compile_plan(
                graph("chain"),
                Strategy(PartitionScheme(), (SplitDecision((0, 2, 4, 8)),), lanes=lanes),
                names(2),
            )
