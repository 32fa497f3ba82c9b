"""Proves that a plan is whole: every row has one source, and every output row arrives exactly once.

A plan may come from a file or over the wire, so that nothing in it is taken for granted but its types.
"""

from __future__ import annotations

import re

from distredge.errors import StrategyError
from distredge.graph.rows import Rows
from distredge.plan.execution import REQUESTER, ExecutionPlan, Piece, Task, TaskInput, TensorInfo
from distredge.plan.strategy import are_lanes
from distredge.plan.wire import CODINGS, FLOATS, RAW, WIRES

_DTYPE = re.compile(r"bool|object|(u?int|b?float|complex)[0-9]+[a-z0-9_]*")

_COMMON = ("model", "graph", "devices", "inputs", "outputs")
"""What plans beside each other share."""

Made = dict[tuple[int, str], Rows]
"""Rows of a tensor that a task makes."""


def validate_plan(plan: ExecutionPlan) -> None:
    """Checks everything that a peer relies on.

    Raises:
        StrategyError: the plan names a device, tensor, task, part or transfer that is not there, a row
            has no source or two, rows come from a task that does not make them, a transfer is read by
            nobody, or tasks wait for each other in a circle.
    """
    _check_strategy(plan)
    if plan.wire not in WIRES:
        raise StrategyError(f"the plan's wire is {plan.wire[:20]!r}; it may be {', '.join(WIRES)}")
    for name, info in plan.tensors.items():
        _check_tensor(name, info)
    for at, task in enumerate(plan.tasks):
        _check_task(plan, at, task)
    made = {(task.id, out.tensor): out.rows for task in plan.tasks for out in task.outputs}
    for at in range(len(plan.transfers)):
        _check_transfer(plan, at, made)
    unread = {(transfer.target, transfer.id) for transfer in plan.transfers}
    for task in plan.tasks:
        for item in task.inputs:
            _check_input(plan, made, task.device, item)
            unread -= {(task.device, piece.transfer) for piece in item.pieces}
    if len(plan.results) != len(plan.outputs):
        raise StrategyError(f"{len(plan.outputs)} outputs have {len(plan.results)} results")
    for name, item in zip(plan.outputs, plan.results, strict=True):
        _check_described(plan, [item.tensor])
        if item.tensor != name or item.rows != plan.tensors[name].all_rows:
            raise StrategyError(f"output {name!r} does not arrive with all its rows")
        _check_input(plan, made, REQUESTER, item)
        unread -= {(REQUESTER, piece.transfer) for piece in item.pieces}
    if unread:
        raise StrategyError(f"transfer {min(unread)[1]} is read by nobody")
    _check_order(plan)
    if plan.strategy.beside != tuple(other.strategy for other in plan.beside):
        raise StrategyError("the plans beside a plan are not those of its strategy")
    for other in plan.beside:
        if other.beside or other.strategy.beside:
            raise StrategyError("a plan beside another one has plans beside itself")
        if any(getattr(other, field) != getattr(plan, field) for field in _COMMON):
            raise StrategyError("plans beside each other are for different models or devices")
        validate_plan(other)


def _check_strategy(plan: ExecutionPlan) -> None:
    strategy, devices = plan.strategy, len(plan.devices)
    if len(strategy.splits) != strategy.scheme.volumes:
        raise StrategyError(f"{strategy.scheme.volumes} volumes have {len(strategy.splits)} split decisions")
    for split in strategy.splits:
        if split.parts != len(strategy.lanes or plan.devices) or not split.is_valid:
            raise StrategyError(f"bounds {split.bounds} do not share rows out over {devices} devices")
    if not are_lanes(strategy.lanes, devices):
        raise StrategyError(f"lanes {strategy.lanes} are not those of devices 0 to {devices - 1}, in order")
    if strategy.tail_device is not None and strategy.tail_device not in range(devices):
        raise StrategyError(f"tail device {strategy.tail_device} is not one of {devices} devices")


def _check_tensor(name: str, info: TensorInfo) -> None:
    axis = info.row_axis
    if axis is not None and axis not in range(len(info.shape)):
        raise StrategyError(f"tensor {name!r} of shape {info.shape} has no axis {axis}")
    if info.dynamic and axis is not None:
        raise StrategyError(f"tensor {name!r} has rows, so that its shape cannot depend on the data")
    if any(size < 0 for size in info.shape) or not _DTYPE.fullmatch(info.dtype):
        raise StrategyError(f"tensor {name!r} cannot have shape {info.shape} and dtype {info.dtype[:40]!r}")


def _check_task(plan: ExecutionPlan, at: int, task: Task) -> None:
    if task.id != at or task.device not in range(len(plan.devices)) or task.part not in plan.parts:
        raise StrategyError(f"task {at} has a wrong number, device or part")
    part = plan.parts[task.part]
    read = [item.tensor for item in task.inputs]
    made = tuple(item.tensor for item in task.outputs)
    if sorted(read) != sorted(part.inputs) or made != part.outputs:
        raise StrategyError(f"task {at} does not fit its part's inputs and outputs")
    _check_described(plan, [*read, *made])
    for out in task.outputs:
        if (
            not out.rows
            or not plan.tensors[out.tensor].all_rows.covers(out.rows)
            or not out.rows.covers(out.owned)
        ):
            raise StrategyError(
                f"task {at} cannot make rows {out.rows} of {out.tensor!r} and own {out.owned}"
            )


def _check_transfer(plan: ExecutionPlan, at: int, made: Made) -> None:
    transfer = plan.transfers[at]
    ends, devices = (transfer.source, transfer.target), range(len(plan.devices))
    if transfer.id != at or ends[0] == ends[1] or any(e != REQUESTER and e not in devices for e in ends):
        raise StrategyError(f"transfer {at} has a wrong number or ends")
    if not -1 <= transfer.task < len(plan.tasks):
        raise StrategyError(f"transfer {at} names task {transfer.task}, which is not there")
    _check_described(plan, [transfer.tensor])
    info = plan.tensors[transfer.tensor]
    is_float = info.dtype in FLOATS and not info.dynamic
    if transfer.coding not in CODINGS or not (is_float or transfer.coding == RAW):
        raise StrategyError(f"transfer {at} of {info.dtype} cannot be coded as {transfer.coding[:20]!r}")
    if transfer.task >= 0:
        rows, on = made.get((transfer.task, transfer.tensor)), plan.tasks[transfer.task].device
    else:
        rows, on = _given(plan, transfer.tensor), REQUESTER
    if on != transfer.source or rows is None or not rows.covers(transfer.rows) or not transfer.rows:
        raise StrategyError(f"transfer {at} sends rows that its source does not have")


def _given(plan: ExecutionPlan, tensor: str) -> Rows | None:
    """The rows that the requester has of a tensor to begin with."""
    return plan.tensors[tensor].all_rows if tensor in plan.inputs else None


def _check_described(plan: ExecutionPlan, names: list[str]) -> None:
    for name in names:
        if name not in plan.tensors:
            raise StrategyError(f"tensor {name!r} is not described in the plan")


def _check_input(plan: ExecutionPlan, made: Made, device: int, item: TaskInput) -> None:
    at = item.rows.start
    for piece in item.pieces:
        if piece.rows.start != at or not piece.rows:
            raise StrategyError(
                f"rows of {item.tensor!r} on device {device} have a gap or come twice at {at}"
            )
        at = piece.rows.stop
        source = _source_rows(plan, made, device, item.tensor, piece)
        if source is None or not source.covers(piece.rows):
            raise StrategyError(f"rows {piece.rows} of {item.tensor!r} on device {device} have no source")
    if not item.rows or at != item.rows.stop or not plan.tensors[item.tensor].all_rows.covers(item.rows):
        raise StrategyError(f"rows {item.rows} of {item.tensor!r} on device {device} are not covered")


def _source_rows(plan: ExecutionPlan, made: Made, device: int, tensor: str, piece: Piece) -> Rows | None:
    if piece.transfer >= 0 and piece.task >= 0:
        return None
    if piece.transfer >= 0:
        if piece.transfer >= len(plan.transfers):
            return None
        transfer = plan.transfers[piece.transfer]
        return transfer.rows if (transfer.target, transfer.tensor) == (device, tensor) else None
    if piece.task >= 0:
        if piece.task >= len(plan.tasks) or plan.tasks[piece.task].device != device:
            return None
        return made.get((piece.task, tensor))
    return _given(plan, tensor) if device == REQUESTER else None


def _check_order(plan: ExecutionPlan) -> None:
    """Each task waits only for tasks before it in the list, on any device: so no circle is possible."""
    for task in plan.tasks:
        for item in task.inputs:
            for piece in item.pieces:
                before = plan.transfers[piece.transfer].task if piece.transfer >= 0 else piece.task
                if before >= task.id:
                    raise StrategyError(f"task {task.id} waits for task {before} behind it")
