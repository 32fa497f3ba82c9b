"""Proves that a plan is whole: every row has one source, and every output row arrives exactly once."""

from __future__ import annotations

from distredge.errors import StrategyError
from distredge.graph.rows import Rows
from distredge.plan.execution import REQUESTER, ExecutionPlan, Piece, TaskInput


def validate_plan(plan: ExecutionPlan) -> None:
    """Checks everything that a peer relies on.

    Raises:
        StrategyError: the plan names a device, tensor, task, part or transfer that is not there, a row
            has no source or two, rows come from a task that does not make them, or tasks wait for
            each other in a circle.
    """
    _check_names(plan)
    made = {(task.id, out.tensor): out.rows for task in plan.tasks for out in task.outputs}
    for transfer in plan.transfers:
        if transfer.task >= 0:
            source = made.get((transfer.task, transfer.tensor))
            on = plan.tasks[transfer.task].device
        else:
            source, on = plan.tensors[transfer.tensor].all_rows, REQUESTER
        if on != transfer.source or source is None or not source.covers(transfer.rows) or not transfer.rows:
            raise StrategyError(f"transfer {transfer.id} sends rows that its source does not have")
    for task in plan.tasks:
        for item in task.inputs:
            _check_input(plan, made, task.device, item)
    for name, item in zip(plan.outputs, plan.results, strict=True):
        if item.tensor != name or item.rows != plan.tensors[name].all_rows:
            raise StrategyError(f"output {name!r} does not arrive with all its rows")
        _check_input(plan, made, REQUESTER, item)
    _check_order(plan)


def _check_names(plan: ExecutionPlan) -> None:
    devices = range(len(plan.devices))
    for at, task in enumerate(plan.tasks):
        if task.id != at or task.device not in devices or task.part not in plan.parts:
            raise StrategyError(f"task {at} has a wrong number, device or part")
        part = plan.parts[task.part]
        if {item.tensor for item in task.inputs} != set(part.inputs) or part.outputs != tuple(
            item.tensor for item in task.outputs
        ):
            raise StrategyError(f"task {at} does not fit its part's inputs and outputs")
        _check_tensors(plan, [item.tensor for item in task.inputs] + [item.tensor for item in task.outputs])
    for at, transfer in enumerate(plan.transfers):
        ends = (transfer.source, transfer.target)
        if transfer.id != at or ends[0] == ends[1] or any(e != REQUESTER and e not in devices for e in ends):
            raise StrategyError(f"transfer {at} has a wrong number or ends")
        if transfer.task >= len(plan.tasks):
            raise StrategyError(f"transfer {at} names task {transfer.task}, which is not there")
        _check_tensors(plan, [transfer.tensor])


def _check_tensors(plan: ExecutionPlan, names: list[str]) -> None:
    for name in names:
        if name not in plan.tensors:
            raise StrategyError(f"tensor {name!r} is not described in the plan")


def _check_input(
    plan: ExecutionPlan, made: dict[tuple[int, str], Rows], device: int, item: TaskInput
) -> None:
    at = item.rows.start
    for piece in item.pieces:
        if piece.rows.start != at or not piece.rows:
            raise StrategyError(f"{item.tensor!r} on device {device} has a gap or an overlap at {at}")
        at = piece.rows.stop
        source = _source_rows(plan, made, device, item.tensor, piece)
        if source is None or not source.covers(piece.rows):
            raise StrategyError(f"rows {piece.rows} of {item.tensor!r} on device {device} have no source")
    if at != item.rows.stop or not plan.tensors[item.tensor].all_rows.covers(item.rows):
        raise StrategyError(f"rows {item.rows} of {item.tensor!r} on device {device} are not covered")


def _source_rows(
    plan: ExecutionPlan, made: dict[tuple[int, str], Rows], device: int, tensor: str, piece: Piece
) -> Rows | None:
    if piece.transfer >= 0:
        if piece.transfer >= len(plan.transfers):
            return None
        transfer = plan.transfers[piece.transfer]
        return transfer.rows if (transfer.target, transfer.tensor) == (device, tensor) else None
    if piece.task >= 0:
        if piece.task >= len(plan.tasks) or plan.tasks[piece.task].device != device:
            return None
        return made.get((piece.task, tensor))
    return plan.tensors[tensor].all_rows if device == REQUESTER else None


def _check_order(plan: ExecutionPlan) -> None:
    """Each task waits only for tasks before it in the list, on any device: so no circle is possible."""
    for task in plan.tasks:
        for item in task.inputs:
            for piece in item.pieces:
                before = plan.transfers[piece.transfer].task if piece.transfer >= 0 else piece.task
                if before >= task.id:
                    raise StrategyError(f"task {task.id} waits for task {before} behind it")
