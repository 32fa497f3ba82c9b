"""Small execution plans written by hand: what the state machines are told, without graph or compiler."""

from __future__ import annotations

from collections.abc import Sequence

from distredge.graph.part import PartSpec
from distredge.graph.rows import Rows
from distredge.plan.execution import (
    REQUESTER,
    ExecutionPlan,
    Piece,
    Task,
    TaskInput,
    TaskOutput,
    TensorInfo,
    Transfer,
)
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy


def rows_from(tensor: str, *pieces: tuple[int, int, str, int]) -> TaskInput:
    """An input of pieces (start, stop, "transfer" or "task" or "own", id)."""
    made = tuple(
        Piece(Rows(a, b), transfer=at if kind == "transfer" else -1, task=at if kind == "task" else -1)
        for a, b, kind, at in pieces
    )
    return TaskInput(tensor, Rows(pieces[0][0], pieces[-1][1]), made)


def task(
    number: int, device: int, volume: int, inputs: Sequence[TaskInput], *outputs: tuple[str, int, int]
) -> Task:
    made = tuple(TaskOutput(tensor, Rows(a, b), Rows(a, b)) for tensor, a, b in outputs)
    return Task(number, device, volume, 0, f"part{number}", tuple(inputs), made)


def plan_of(
    devices: int,
    tensors: dict[str, int],
    tasks: Sequence[Task],
    transfers: Sequence[tuple[str, int, int, int, int, int]],
    results: Sequence[TaskInput],
    inputs: Sequence[str] = ("x",),
) -> ExecutionPlan:
    """A plan over [1, 1, rows, 2] maps; transfers are (tensor, start, stop, source, target, task)."""
    return ExecutionPlan(
        model="m",
        graph="g",
        devices=tuple(f"peer{i}" for i in range(devices)),
        strategy=Strategy(PartitionScheme(), (SplitDecision((0,) + (8,) * devices),)),
        inputs=tuple(inputs),
        outputs=tuple(result.tensor for result in results),
        tensors={name: TensorInfo("float32", (1, 1, rows, 2), 2) for name, rows in tensors.items()},
        parts={
            t.part: PartSpec((), tuple(i.tensor for i in t.inputs), tuple(o.tensor for o in t.outputs))
            for t in tasks
        },
        tasks=tuple(tasks),
        transfers=tuple(
            Transfer(i, tensor, Rows(a, b), source, target, by)
            for i, (tensor, a, b, source, target, by) in enumerate(transfers)
        ),
        results=tuple(results),
    )


def halo_plan() -> ExecutionPlan:
    """Two devices, two volumes, a row exchanged each way: x[8] -> a[8] -> y[8].

    Device 0 runs tasks 0 and 2, device 1 tasks 1 and 3.
    """
    return plan_of(
        2,
        {"x": 8, "a": 8, "y": 8},
        [
            task(0, 0, 0, [rows_from("x", (0, 5, "transfer", 0))], ("a", 0, 4)),
            task(1, 1, 0, [rows_from("x", (3, 8, "transfer", 1))], ("a", 4, 8)),
            task(2, 0, 1, [rows_from("a", (0, 4, "task", 0), (4, 5, "transfer", 2))], ("y", 0, 4)),
            task(3, 1, 1, [rows_from("a", (3, 4, "transfer", 3), (4, 8, "task", 1))], ("y", 4, 8)),
        ],
        [
            ("x", 0, 5, REQUESTER, 0, -1),
            ("x", 3, 8, REQUESTER, 1, -1),
            ("a", 4, 5, 1, 0, 1),
            ("a", 3, 4, 0, 1, 0),
            ("y", 0, 4, 0, REQUESTER, 2),
            ("y", 4, 8, 1, REQUESTER, 3),
        ],
        [rows_from("y", (0, 4, "transfer", 4), (4, 8, "transfer", 5))],
    )


def gather_plan() -> ExecutionPlan:
    """Device 1 only finishes what 0 and 2 began, and asks for rows of two tensors of one task.

    Device 0: task 0 makes a[0:8] and b[0:8] from all of x. Device 2: task 1 makes c[0:8]. Device 1:
    task 2 reads rows of a, b and c, task 3 reads a and what task 2 made.
    """
    return plan_of(
        3,
        {"x": 8, "a": 8, "b": 8, "c": 8, "d": 8, "y": 8},
        [
            task(0, 0, 0, [rows_from("x", (0, 8, "transfer", 0))], ("a", 0, 8), ("b", 0, 8)),
            task(1, 2, 0, [rows_from("x", (0, 8, "transfer", 1))], ("c", 0, 8)),
            task(
                2, 1, 1,
                [
                    rows_from("a", (0, 8, "transfer", 2)),
                    rows_from("b", (0, 8, "transfer", 3)),
                    rows_from("c", (0, 3, "transfer", 4), (3, 8, "transfer", 5)),
                ],
                ("d", 0, 8),
            ),
            task(
                3, 1, 2,
                [rows_from("a", (0, 8, "transfer", 2)), rows_from("d", (0, 8, "task", 2))],
                ("y", 0, 8),
            ),
        ],
        [
            ("x", 0, 8, REQUESTER, 0, -1),
            ("x", 0, 8, REQUESTER, 2, -1),
            ("a", 0, 8, 0, 1, 0),
            ("b", 0, 8, 0, 1, 0),
            ("c", 0, 3, 2, 1, 1),
            ("c", 3, 8, 2, 1, 1),
            ("y", 0, 8, 1, REQUESTER, 3),
        ],
        [rows_from("y", (0, 8, "transfer", 6))],
    )  # fmt: skip


def independent_plan() -> ExecutionPlan:
    """One device, two tasks that wait for one transfer each, in the plan's order 0, 1; two outputs."""
    return plan_of(
        1,
        {"x": 8, "z": 8, "y": 8, "w": 8},
        [
            task(0, 0, 0, [rows_from("x", (0, 8, "transfer", 0))], ("y", 0, 8)),
            task(1, 0, 0, [rows_from("z", (0, 8, "transfer", 1))], ("w", 0, 8)),
        ],
        [
            ("x", 0, 8, REQUESTER, 0, -1),
            ("z", 0, 8, REQUESTER, 0, -1),
            ("y", 0, 8, 0, REQUESTER, 0),
            ("w", 0, 8, 0, REQUESTER, 1),
        ],
        [rows_from("y", (0, 8, "transfer", 2)), rows_from("w", (0, 8, "transfer", 3))],
        inputs=("x", "z"),
    )


def echo_plan() -> ExecutionPlan:
    """No device has anything to do: the requester's own input is its output."""
    return plan_of(1, {"x": 8}, [], [], [rows_from("x", (0, 8, "own", -1))])
