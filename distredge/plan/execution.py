"""The compiled contract: a flat list of tasks and transfers that the simulator prices and the peers execute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distredge.graph.part import PartSpec
from distredge.graph.rows import Rows
from distredge.plan.strategy import Strategy

REQUESTER = -1
"""The device number of the requester, in tasks and transfers."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of a task's input, and where they come from.

    Exactly one of `transfer` and `task` is not -1; rows are numbered in the whole tensor.
    """

    rows: Rows
    transfer: int = -1
    task: int = -1


@dataclass(frozen=True, slots=True)
class TaskInput:
    """One tensor that a task reads; `pieces` cover `rows` exactly once, in order. A whole tensor has
    rows (0, 1) and one piece.

    Also used for what the requester takes: then a piece with neither transfer nor task is one of the
    requester's own inputs."""

    tensor: str
    rows: Rows
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """One tensor that a task makes: the rows computed (halo included) and, of these, the rows owned.

    For a tensor nobody else reads `owned` may be anything inside `rows`."""

    tensor: str
    rows: Rows
    owned: Rows


@dataclass(frozen=True, slots=True)
class Task:
    """One run of one session on one device. `volume == number of volumes` marks the tail."""

    id: int
    device: int
    volume: int
    stage: int
    part: str
    inputs: tuple[TaskInput, ...]
    outputs: tuple[TaskOutput, ...]


@dataclass(frozen=True, slots=True)
class Transfer:
    """Rows of one tensor, sent once from `source` to `target`.

    Attributes:
        task: the task on `source` that makes the rows; -1 when the requester sends a graph input, or
            a graph input is passed on.
    """

    id: int
    tensor: str
    rows: Rows
    source: int
    target: int
    task: int = -1


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a peer must know of a tensor to check, cut and assemble it. For a partials tensor the row
    axis already holds the number of participants."""

    dtype: str
    shape: tuple[int, ...]
    row_axis: int | None

    def part_shape(self, rows: Rows) -> tuple[int, ...]:
        """Shape of these rows of the tensor."""
        if self.row_axis is None:
            return self.shape
        return self.shape[: self.row_axis] + (rows.size,) + self.shape[self.row_axis + 1 :]


@dataclass(frozen=True)
class ExecutionPlan:
    """Everything that the peers need to know, apart from the model itself.

    Attributes:
        model: SHA-256 of the weights; the file that peers cache.
        graph: SHA-256 of the simplified, weightless ONNX model that parts are cut from.
        devices: names; tasks and transfers count in this order.
        inputs, outputs: the model's, in its order.
        tensors: every tensor that a task reads or makes.
        parts: sessions by key.
        tasks: in an order in which one device may run them.
        transfers: `transfers[i].id == i`.
        results: per output, the transfers that the requester assembles it from.
    """

    model: str
    graph: str
    devices: tuple[str, ...]
    strategy: Strategy
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, TensorInfo]
    parts: Mapping[str, PartSpec]
    tasks: tuple[Task, ...]
    transfers: tuple[Transfer, ...]
    results: tuple[TaskInput, ...]
