"""ExecutionPlan.validate: every planted damage is seen."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from distredge.errors import StrategyError
from distredge.graph.rows import Rows
from distredge.plan.execution import ExecutionPlan, Piece, Task, TaskInput
from tests.plan.support import random_plan

SEEDS = range(8)


def on_input(
    plan: ExecutionPlan, rng: random.Random, change: Callable[[TaskInput], Any]
) -> ExecutionPlan | None:
    """The plan with one task's input or one result changed; None where nothing can be."""
    places = [(task, at) for task in plan.tasks for at in range(len(task.inputs))]
    rng.shuffle(places)
    for task, at in places:
        changed = change(task.inputs[at])
        if changed is not None and changed != task.inputs[at]:
            inputs = (*task.inputs[:at], changed, *task.inputs[at + 1 :])
            return with_task(plan, replace(task, inputs=inputs))
    return None


def with_task(plan: ExecutionPlan, task: Task) -> ExecutionPlan:
    return replace(plan, tasks=(*plan.tasks[: task.id], task, *plan.tasks[task.id + 1 :]))


def with_transfer(plan: ExecutionPlan, at: int, **changes: Any) -> ExecutionPlan:
    transfers = list(plan.transfers)
    transfers[at] = replace(transfers[at], **changes)
    return replace(plan, transfers=tuple(transfers))


def dropped_transfer(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan:
    at = rng.randrange(len(plan.transfers))
    kept = [t for t in plan.transfers if t.id != at]
    return replace(plan, transfers=tuple(replace(t, id=i) for i, t in enumerate(kept)))


def last_transfer_gone(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan:
    return replace(plan, transfers=plan.transfers[:-1])


def shifted_transfer(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan:
    t = rng.choice(plan.transfers)
    by = rng.choice([-1, 1])
    return with_transfer(plan, t.id, rows=Rows(t.rows.start + by, t.rows.stop + by))


def shorter_transfer(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan:
    t = rng.choice(plan.transfers)
    rows = rng.choice([Rows(t.rows.start + 1, t.rows.stop), Rows(t.rows.start, t.rows.stop - 1)])
    return with_transfer(plan, t.id, rows=rows)


def wrong_target(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan:
    t = rng.choice(plan.transfers)
    ends = [d for d in range(-1, len(plan.devices)) if d != t.target]
    return with_transfer(plan, t.id, target=rng.choice(ends))


def wrong_source(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan:
    t = rng.choice(plan.transfers)
    ends = [d for d in range(-1, len(plan.devices)) if d != t.source]
    return with_transfer(plan, t.id, source=rng.choice(ends))


def device_that_is_not_there(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan:
    t = rng.choice(plan.transfers)
    return with_transfer(
        plan, t.id, **{rng.choice(["source", "target"]): rng.choice([-2, len(plan.devices)])}
    )


def wrong_maker(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan | None:
    """The transfer names a task that does not make these rows."""
    made = {(t.id, o.tensor) for t in plan.tasks for o in t.outputs}
    t = rng.choice(plan.transfers)
    others = [task.id for task in plan.tasks if (task.id, t.tensor) not in made]
    others += [len(plan.tasks), *([-1] if t.task >= 0 else [])]
    return with_transfer(plan, t.id, task=rng.choice(others))


def wrong_tensor(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan:
    t = rng.choice(plan.transfers)
    return with_transfer(
        plan, t.id, tensor=rng.choice([n for n in plan.tensors if n != t.tensor] + ["no such"])
    )


def wrong_number(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan:
    t = rng.choice(plan.transfers)
    return with_transfer(plan, t.id, id=t.id + 1)


def duplicate_piece(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan | None:
    return on_input(plan, rng, lambda i: replace(i, pieces=(*i.pieces, rng.choice(i.pieces))))


def dropped_piece(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan | None:
    def change(item: TaskInput) -> TaskInput:
        at = rng.randrange(len(item.pieces))
        return replace(item, pieces=item.pieces[:at] + item.pieces[at + 1 :])

    return on_input(plan, rng, change)


def overlapping_pieces(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan | None:
    def change(item: TaskInput) -> TaskInput | None:
        if len(item.pieces) < 2:
            return None
        first, second, *rest = item.pieces
        return replace(
            item, pieces=(replace(first, rows=Rows(first.rows.start, first.rows.stop + 1)), second, *rest)
        )

    return on_input(plan, rng, change)


def swapped_pieces(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan | None:
    def change(item: TaskInput) -> TaskInput | None:
        return replace(item, pieces=item.pieces[::-1]) if len(item.pieces) > 1 else None

    return on_input(plan, rng, change)


def piece_without_source(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan | None:
    return on_input(
        plan, rng, lambda i: replace(i, pieces=(replace(i.pieces[0], transfer=-1, task=-1), *i.pieces[1:]))
    )


def input_past_the_edge(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan | None:
    def change(item: TaskInput) -> TaskInput | None:
        last = item.pieces[-1]
        if item.rows.stop < plan.tensors[item.tensor].rows:
            return None
        longer = replace(last, rows=Rows(last.rows.start, last.rows.stop + 1))
        return TaskInput(item.tensor, Rows(item.rows.start, item.rows.stop + 1), (*item.pieces[:-1], longer))

    return on_input(plan, rng, change)


def cycle(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan | None:
    """Rows come from a task that stands behind their reader."""
    for task in plan.tasks:
        for item in task.inputs:
            for at, piece in enumerate(item.pieces):
                maker = plan.transfers[piece.transfer].task if piece.transfer >= 0 else piece.task
                if maker < 0:
                    continue
                # Both keep their rows and trade places in the list, and everyone learns the new numbers.
                number = {task.id: maker, maker: task.id}
                return renumbered(plan, number) if at >= 0 else None
    return None


def renumbered(plan: ExecutionPlan, number: dict[int, int]) -> ExecutionPlan:
    def new(task: int) -> int:
        return number.get(task, task)

    def moved(item: TaskInput) -> TaskInput:
        return replace(item, pieces=tuple(replace(p, task=new(p.task)) for p in item.pieces))

    tasks = [replace(t, id=new(t.id), inputs=tuple(moved(i) for i in t.inputs)) for t in plan.tasks]
    return replace(
        plan,
        tasks=tuple(sorted(tasks, key=lambda t: t.id)),
        transfers=tuple(replace(t, task=new(t.task)) for t in plan.transfers),
        results=tuple(moved(i) for i in plan.results),
    )


def waits_for_itself(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan | None:
    for task in plan.tasks:
        for out in task.outputs:
            if out.tensor in {i.tensor for i in task.inputs}:
                return None
    task = rng.choice(plan.tasks)
    out = task.outputs[0]
    loop = TaskInput(out.tensor, out.rows, (Piece(out.rows, task=task.id),))
    part = plan.parts[task.part]
    parts = {**plan.parts, "loop": replace(part, inputs=(*part.inputs, out.tensor))}
    return with_task(replace(plan, parts=parts), replace(task, part="loop", inputs=(*task.inputs, loop)))


def task_elsewhere(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan | None:
    task = rng.choice(plan.tasks)
    others = [d for d in range(len(plan.devices)) if d != task.device] + [len(plan.devices), -1]
    return with_task(plan, replace(task, device=rng.choice(others)))


def task_makes_less(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan:
    """A task makes one row less than the message that carries the last of them says."""
    t = rng.choice([t for t in plan.transfers if t.task >= 0])
    task = plan.tasks[t.task]
    outputs = tuple(
        replace(o, rows=Rows(o.rows.start, t.rows.stop - 1)) if o.tensor == t.tensor else o
        for o in task.outputs
    )
    return with_task(plan, replace(task, outputs=outputs))


def unknown_part(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan:
    return with_task(plan, replace(rng.choice(plan.tasks), part="no such"))


def part_of_another_task(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan | None:
    task = rng.choice(plan.tasks)

    def ends(key: str) -> Any:
        return set(plan.parts[key].inputs), plan.parts[key].outputs

    others = [key for key in plan.parts if ends(key) != ends(task.part)]
    return with_task(plan, replace(task, part=rng.choice(others))) if others else None


def undescribed_tensor(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan:
    gone = rng.choice(plan.transfers).tensor
    return replace(plan, tensors={name: info for name, info in plan.tensors.items() if name != gone})


def result_missing_rows(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan:
    at = rng.randrange(len(plan.results))
    item = plan.results[at]
    less = TaskInput(item.tensor, Rows(item.pieces[0].rows.stop, item.rows.stop), item.pieces[1:])
    return replace(plan, results=(*plan.results[:at], less, *plan.results[at + 1 :]))


def result_gone(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan:
    return replace(plan, results=plan.results[:-1])


def unread_transfer(plan: ExecutionPlan, rng: random.Random) -> ExecutionPlan:
    """A message that no task reads: its device would keep the frame for ever."""
    extra = replace(rng.choice(plan.transfers), id=len(plan.transfers))
    return replace(plan, transfers=(*plan.transfers, extra))


DAMAGES = [
    dropped_transfer, last_transfer_gone, shifted_transfer, shorter_transfer, wrong_target, wrong_source,
    device_that_is_not_there, wrong_maker, wrong_tensor, wrong_number, duplicate_piece, dropped_piece,
    overlapping_pieces, swapped_pieces, piece_without_source, input_past_the_edge, cycle, waits_for_itself,
    task_elsewhere, task_makes_less, unknown_part, part_of_another_task, undescribed_tensor,
    result_missing_rows, result_gone, unread_transfer,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["chain", "branches", "excited", "two_inputs", "boxes_by_score"])
def test_damage_is_seen(
    name: str, damage: Callable[[ExecutionPlan, random.Random], ExecutionPlan | None]
) -> None:
    done = 0
    for seed in SEEDS:
        rng = random.Random(seed)
        plan = random_plan(name, 3, 3, seed)
        damaged = damage(plan, rng)
        if damaged is None:
            continue
        done += 1
        assert damaged != plan
        with pytest.raises(StrategyError):
            damaged.validate()
    assert done, "nothing was damaged"
