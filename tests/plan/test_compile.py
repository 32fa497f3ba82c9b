"""compile_plan: every plan is whole, and the edges of what may be asked."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from distredge.errors import StrategyError
from distredge.graph.rows import Rows
from distredge.plan.compile import biggest_part, check_strategy, compile_plan
from distredge.plan.draw import random_strategy
from distredge.plan.execution import REQUESTER, ExecutionPlan, Piece, TaskInput
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from tests.plan.support import NAMES, graph, names, one_volume, random_plan, sent

SEEDS = range(8)


# ---------------------------------------------------------------------- by hand


def test_chain_of_two_devices() -> None:
    """Three 3x3 convolutions, a pool, one more: the halo of each half, by the Vertical-Splitting Law."""
    plan = compile_plan(graph("chain"), one_volume((0, 4, 8)), names(2))
    plan.validate()
    # y[0:4] <- conv: [0:5] of the pooled <- [0:10] <- conv, conv, conv: [0:13]; and from below [3:16]
    assert sent(plan) == [("x0", 0, 13), ("x0", 3, 16), ("relu8", 0, 4), ("relu8", 4, 8)]
    assert [(t.device, t.volume, t.stage) for t in plan.tasks] == [(0, 0, 0), (1, 0, 0)]


def test_exchange_between_volumes() -> None:
    """Cut in front of the pool: each device sends the other what its halo needs, and keeps the rest."""
    g = graph("chain")
    strategy = Strategy(PartitionScheme(("relu5",)), (SplitDecision((0, 9, 16)), SplitDecision((0, 4, 8))))
    plan = compile_plan(g, strategy, names(2))
    plan.validate()
    assert sent(plan, 0, 1) == [("relu5", 6, 9)]
    assert sent(plan, 1, 0) == [("relu5", 9, 10)]
    assert plan.tasks[2].inputs == (
        TaskInput("relu5", Rows(0, 10), (Piece(Rows(0, 9), task=0), Piece(Rows(9, 10), transfer=2))),
    )
    assert sent(plan, REQUESTER) == [("x0", 0, 12), ("x0", 6, 16)]


def test_what_a_device_computed_for_its_halo_is_not_sent_to_it() -> None:
    """Rows that a device holds already, owned or not, need no transfer."""
    plan = compile_plan(
        graph("branches"),
        Strategy(PartitionScheme(("relu1",)), (SplitDecision((0, 10, 20)), SplitDecision((0, 12, 20)))),
        names(2),
    )
    plan.validate()
    for transfer in plan.transfers:
        for task in plan.tasks:
            if task.device == transfer.target:
                for out in task.outputs:
                    if out.tensor == transfer.tensor:
                        assert not out.rows.intersect(transfer.rows)


def test_reduction_moves_partial_sums_only() -> None:
    g = graph("excited")
    plan = compile_plan(g, one_volume((0, 6, 12, 18), tail_device=1), names(3))
    plan.validate()
    partials = [t for t in plan.transfers if t.tensor.endswith(".partials")]
    assert all(plan.transfer_bytes(t) <= 8 * 4 for t in partials)
    between = [t for t in plan.transfers if REQUESTER not in (t.source, t.target)]
    assert between == partials
    first = [t for t in partials if t.tensor == partials[0].tensor]
    assert sorted((t.source, t.target) for t in first) == [
        (a, b) for a in range(3) for b in range(3) if a != b
    ]
    assert [tuple(t.rows) for t in sorted(first, key=lambda t: t.source)[::2]] == [(0, 1), (1, 2), (2, 3)]
    # Behind the last rows one device needs the second reduction's partials.
    last = [t for t in partials if t.tensor == partials[-1].tensor]
    assert sorted((t.source, t.target) for t in last) == [(0, 1), (2, 1)]


# ---------------------------------------------------------------------- edges


@pytest.mark.parametrize("name", NAMES)
def test_one_device_alone(name: str) -> None:
    """All inputs there, all outputs back, nothing else on the wire."""
    g = graph(name)
    volumes = find_volumes(g, PartitionScheme())
    plan = compile_plan(g, one_volume((0, volumes[0].rows)), names(1))
    plan.validate()
    assert {t.tensor for t in plan.transfers if t.source == REQUESTER} <= set(g.inputs)
    assert {t.tensor for t in plan.transfers if t.target == REQUESTER} == set(g.outputs)
    assert all(REQUESTER in (t.source, t.target) for t in plan.transfers)


@pytest.mark.parametrize("name", NAMES)
def test_parts_without_rows(name: str) -> None:
    """Devices without rows have no task and no message, the tail's device apart."""
    g = graph(name)
    rows = find_volumes(g, PartitionScheme())[0].rows
    plan = compile_plan(g, one_volume((0, 0, rows, rows), tail_device=1), names(3))
    plan.validate()
    assert {task.device for task in plan.tasks} <= {1}
    assert all(device in (REQUESTER, 1) for t in plan.transfers for device in (t.source, t.target))


@pytest.mark.parametrize("name", ["shallow", "excited", "fpn", "boxes_by_score"])
def test_more_devices_than_rows(name: str) -> None:
    g = graph(name)
    rows = find_volumes(g, PartitionScheme())[0].rows
    devices = 3 * rows
    decision = SplitDecision.from_shares(rows, [1.0] * devices)
    plan = compile_plan(g, one_volume(decision.bounds), names(devices))
    plan.validate()
    assert len({task.device for task in plan.tasks}) <= rows + 1


@pytest.mark.parametrize("device", [0, 1, 2])
def test_tail_device(device: int) -> None:
    g = graph("excited")
    plan = compile_plan(g, one_volume((0, 9, 18, 18), tail_device=device), names(3))
    plan.validate()
    tails = [task for task in plan.tasks if task.volume == 1]
    assert [task.device for task in tails] == [device]
    assert {t.source for t in plan.transfers if t.target == REQUESTER} == {device}


def test_tail_goes_to_the_biggest_part() -> None:
    g = graph("excited")
    for bounds, device in (((0, 4, 14, 18), 1), ((0, 9, 18, 18), 0), ((0, 0, 0, 18), 2)):
        plan = compile_plan(g, one_volume(bounds), names(3))
        assert [task.device for task in plan.tasks if task.volume == 1] == [device]
    assert biggest_part(SplitDecision((0, 3, 6, 9))) == 0


def test_cut_behind_every_node() -> None:
    for name in NAMES:
        g = graph(name)
        scheme = PartitionScheme(g.cut_points)
        rng = random.Random(3)
        splits = tuple(
            SplitDecision(tuple(sorted([0, rng.randint(0, v.rows), v.rows]))) for v in find_volumes(g, scheme)
        )
        compile_plan(g, Strategy(scheme, splits), names(2)).validate()


def test_compiling_twice_gives_the_same_plan() -> None:
    for name in NAMES:
        assert random_plan(name, 3, 3, 5) == random_plan(name, 3, 3, 5)


@pytest.mark.parametrize(
    ("strategy", "devices", "message"),
    [
        (one_volume((0, 8)), 2, "split for 1 devices"),
        (one_volume((0, 4, 9)), 2, "has 8 rows"),
        (one_volume((0, 5, 4, 8)), 3, "bounds"),
        (one_volume((1, 5, 8)), 2, "bounds"),
        (one_volume((0, 4, 8), 2), 2, "tail device 2"),
        (one_volume((0, 4, 8), -1), 2, "tail device -1"),
        (Strategy(PartitionScheme(("relu1",)), (SplitDecision((0, 4, 8)),)), 2, "2 volumes"),
        (Strategy(PartitionScheme(), (SplitDecision((0, 8)),) * 2), 1, "1 volumes"),
        (Strategy(PartitionScheme(("x0",)), (SplitDecision((0, 8)),) * 2), 1, "cannot be cut at 'x0'"),
    ],
)
def test_strategies_that_do_not_fit(strategy: Strategy, devices: int, message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        compile_plan(graph("chain"), strategy, names(devices))


# ---------------------------------------------------------------------- any strategy


def random_plans(name: str) -> Iterator[ExecutionPlan]:
    for seed in SEEDS:
        rng = random.Random(f"{name}{seed}")
        yield random_plan(name, rng.randint(1, 6), rng.choice([0, 1, 3, 6]), seed)


@pytest.mark.parametrize("name", NAMES)
def test_random_plans(name: str) -> None:
    g = graph(name)
    for plan in random_plans(name):
        plan.validate()
        check_strategy(g, plan.strategy, len(plan.devices))
        used = {
            (device, piece.transfer)
            for device, item in [(t.device, i) for t in plan.tasks for i in t.inputs]
            + [(REQUESTER, i) for i in plan.results]
            for piece in item.pieces
        }
        seen: dict[tuple[int, str], list[Rows]] = {}
        for transfer in plan.transfers:
            assert (transfer.target, transfer.id) in used, "a message that nobody reads"
            before = seen.setdefault((transfer.target, transfer.tensor), [])
            assert not any(rows.intersect(transfer.rows) for rows in before), "rows that were there already"
            before.append(transfer.rows)
            if transfer.task >= 0:
                owned = {o.tensor: o.owned for o in plan.tasks[transfer.task].outputs}
                assert owned[transfer.tensor].covers(transfer.rows)
            else:
                assert transfer.tensor in g.inputs
        for task in plan.tasks:
            assert all(out.rows.covers(out.owned) for out in task.outputs)
            assert all(item.rows and item.pieces for item in task.inputs)


def test_random_strategies_have_empty_parts_and_random_tails() -> None:
    g = graph("branches")
    rng = random.Random(0)
    drawn = [random_strategy(g, 4, 2, rng) for _ in range(50)]
    assert {s.tail_device for s in drawn} == {0, 1, 2, 3}
    empty = [not split.part(d) for s in drawn for split in s.splits for d in range(4)]
    assert 0.1 < sum(empty) / len(empty) < 0.5
    assert all(s.scheme.volumes == 3 for s in drawn)
    assert len({s.scheme for s in drawn}) > 20
