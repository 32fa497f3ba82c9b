"""The compiled contract: flat lists of tasks and transfers; the simulator prices it, the peers execute it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from distredge.errors import ProtocolError, StrategyError
from distredge.graph.part import PartSpec
from distredge.graph.rows import Rows
from distredge.plan.serde import from_plain, to_plain
from distredge.plan.strategy import Strategy
from distredge.plan.wire import EXACT, RAW, sent_sizes

FORMAT = "distredge-plan"
FORMAT_VERSION = 2

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
        coding: how the rows travel, one of `wire.CODINGS`; the sender may fall back to RAW.
    """

    id: int
    tensor: str
    rows: Rows
    source: int
    target: int
    task: int = -1
    coding: str = RAW


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a peer must know of a tensor to check, cut and assemble it. For a partials tensor the row
    axis already holds the number of participants.

    Attributes:
        dynamic: the shape depends on the data, and `shape` is that of one sample; never rowed.
    """

    dtype: str
    shape: tuple[int, ...]
    row_axis: int | None
    dynamic: bool = False

    @property
    def rows(self) -> int:
        """Rows in all; 1 for a whole tensor."""
        return 1 if self.row_axis is None else self.shape[self.row_axis]

    @property
    def all_rows(self) -> Rows:
        """From the first row to the last; (0, 1) for a whole tensor."""
        return Rows(0, self.rows)

    def part_shape(self, rows: Rows) -> tuple[int, ...]:
        """Shape of these rows of the tensor."""
        if self.row_axis is None:
            return self.shape
        return (*self.shape[: self.row_axis], rows.size, *self.shape[self.row_axis + 1 :])


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
        wire: the user's choice of `wire.WIRES`, which the transfers' codings follow from.
        beside: plans that whole frames may take instead, as `Strategy.beside` says.
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
    wire: str = EXACT
    beside: tuple[ExecutionPlan, ...] = ()

    @property
    def ways(self) -> tuple[ExecutionPlan, ...]:
        """What a frame may take: this plan, with nothing beside it, and those beside it."""
        if not self.beside:
            return (self,)
        return (replace(self, strategy=self.strategy.ways[0], beside=()), *self.beside)

    @classmethod
    def dealt(cls, ways: Sequence[ExecutionPlan]) -> ExecutionPlan:
        """The plan whose `ways` these are."""
        if len(ways) == 1:
            return ways[0]
        strategy = Strategy.dealt([way.strategy for way in ways])
        return replace(ways[0], strategy=strategy, beside=tuple(ways[1:]))

    def validate(self) -> None:
        """Proves that every output row is covered exactly once and every input row has a source.

        Raises:
            StrategyError: it is not so.
        """
        from distredge.plan.validation import validate_plan

        validate_plan(self)

    def row_bytes(self, tensor: str) -> int:
        """Bytes of one row of a tensor in memory; of all of it, for a whole tensor."""
        info = self.tensors[tensor]
        size = _item_bytes(info.dtype)
        kept = (d for axis, d in enumerate(info.shape) if axis != info.row_axis)
        return size * prod(kept)

    def moved_bytes(self, task: Task) -> int:
        """Bytes of a task's inputs and outputs."""
        sizes = [(item.tensor, item.rows.size) for item in task.inputs]
        sizes += [(item.tensor, item.rows.size) for item in task.outputs]
        return sum(self.row_bytes(tensor) * rows for tensor, rows in sizes)

    def transfer_bytes(self, transfer: Transfer) -> int:
        """Bytes of a transfer's rows in memory (of strings, an estimate)."""
        return self.row_bytes(transfer.tensor) * transfer.rows.size

    def sent_bytes(self, transfer: Transfer) -> int:
        """Payload bytes of a transfer; lossless coding, whose gain depends on the data, counts as none."""
        row, beside = sent_sizes(
            self.tensors[transfer.tensor], transfer.coding, self.row_bytes(transfer.tensor)
        )
        return row * transfer.rows.size + beside

    def save(self, path: str | Path) -> None:
        """Writes the plan as a JSON file."""
        document = {"format": FORMAT, "version": FORMAT_VERSION, "plan": to_plain(self)}
        Path(path).write_text(json.dumps(document))

    @classmethod
    def load(cls, path: str | Path) -> ExecutionPlan:
        """Reads and validates a plan file.

        Raises:
            StrategyError: there is no such file, or it holds no valid plan of this version.
        """
        try:
            document = json.loads(Path(path).read_text())
        except OSError as error:
            raise StrategyError(f"{path}: {error.strerror}; write one with `distredge plan -o`") from None
        except (ValueError, RecursionError):
            raise StrategyError(f"{path}: not a plan file (no JSON)") from None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise StrategyError(f"{path}: not a plan file")
        if document.get("version") != FORMAT_VERSION:
            raise StrategyError(
                f"{path}: plan format {document.get('version')}, not {FORMAT_VERSION}; "
                "make it anew with `distredge plan`"
            )
        try:
            plan = from_plain(cls, document.get("plan"))
        except ProtocolError as error:
            raise StrategyError(f"{path}: damaged plan: {error}") from None
        plan.validate()
        return plan


def _item_bytes(dtype: str) -> int:
    """Bytes of one element by its type's name: numpy's, or one of ml_dtypes'."""
    if dtype == "object":
        return 16
    bits = re.match(r"[a-z]+(\d+)", dtype)
    return max(1, int(bits.group(1)) // 8) if bits else 1
