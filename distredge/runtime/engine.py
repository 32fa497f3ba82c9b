"""Runs parts with onnxruntime and keeps each frame's buffers. The same engine serves peers and `verify`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto

from distredge.errors import ModelError, ProtocolError
from distredge.graph.draft import dtype_name
from distredge.graph.extract import PartBuilder, session_options_folder_key
from distredge.graph.part import PartSpec
from distredge.graph.rows import Rows
from distredge.plan.execution import ExecutionPlan, Piece, Task, TaskInput, TensorInfo, Transfer
from distredge.plan.wire import RAW
from distredge.protocol.messages import Buffer, unpack
from distredge.runtime.arena import share_arena
from distredge.runtime.coding import Coded, check_rows, decode_rows
from distredge.runtime.values import is_foreign, run_foreign

Array = np.ndarray[Any, np.dtype[Any]]
DTYPES = frozenset(dtype_name(element) for element in TensorProto.DataType.values() if element)
MATMUL_ACCURACY = ("session.qdq_matmulnbits_accuracy_level", "1")
"""Dequantised weights are multiplied in float32. By default onnxruntime rounds their other operand to int8
if it fuses the two, and whether it does depends on what else is in the session."""
ALL = Rows(0, 1)
"""The rows of a whole tensor."""


class PartSessions:
    """onnxruntime sessions by part key, shared by all plans of one graph.

    Args:
        onnx: the simplified, weightless model.
        weights_folder: where its weights file lies.
        threads: intra-op threads of each session.
        execution_providers: in order of preference.
    """

    def __init__(
        self,
        onnx: bytes,
        weights_folder: Path,
        *,
        threads: int = 1,
        execution_providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        self._builder = PartBuilder(onnx)
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._foreign: set[str] = set()
        self._warm: set[str] = set()
        self._execution_providers = list(execution_providers)
        self._options = _part_options(weights_folder, threads)
        self._weights_folder, self._threads = weights_folder, threads
        self._files: dict[str, Array] = {}
        self._stored: dict[str, list[ort.OrtValue]] = {}  # sessions do not keep alive what they read

    def get(self, key: str, spec: PartSpec) -> ort.InferenceSession:
        """The session of a part; built at its first use.

        Raises:
            ModelError: onnxruntime refuses the part.
        """
        session = self._sessions.get(key)
        if session is None:
            try:
                model = self._builder.build(spec)
                as_stored = self._builder.reads_weights_once(spec)
                options = self._as_stored(key, model) if as_stored else self._options
                session = ort.InferenceSession(model, options, providers=self._execution_providers)
            except Exception as error:  # onnxruntime's own errors share no public base
                line = " ".join(str(error).split())[:300]
                raise ModelError(f"onnxruntime cannot run part {key}: {line}", part=key) from error
            self._sessions[key] = session
            if is_foreign(session):
                self._foreign.add(key)
        return session

    def _as_stored(self, key: str, model: bytes) -> ort.SessionOptions:
        """Weights stay as they are in the file, which all sessions read through one mapping: those of another
        split decision take no memory of their own."""
        options = _part_options(self._weights_folder, self._threads)
        options.add_session_config_entry("session.disable_prepacking", "1")
        if self._execution_providers != ["CPUExecutionProvider"]:
            return options  # another one's memory is not ours to share
        initializers = onnx.load_model_from_string(model).graph.initializer
        outside = [each for each in initializers if each.data_location == TensorProto.EXTERNAL]
        self._stored[key] = [ort.OrtValue.ortvalue_from_numpy(self._view(each)) for each in outside]
        for each, value in zip(outside, self._stored[key], strict=True):
            options.add_initializer(each.name, value)
        return options

    def _view(self, tensor: TensorProto) -> Array:
        place = {entry.key: entry.value for entry in tensor.external_data}
        file = place["location"]
        if file not in self._files:
            self._files[file] = np.memmap(self._weights_folder / file, np.uint8, "r")
        start = int(place.get("offset", 0))
        data = self._files[file][start : start + int(place["length"])]
        return data.view(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).reshape(tensor.dims)

    def keep_only(self, keys: set[str]) -> None:
        """Frees the sessions of all other parts."""
        self._sessions = {key: session for key, session in self._sessions.items() if key in keys}
        self._stored = {key: values for key, values in self._stored.items() if key in keys}
        self._warm &= keys

    def is_warm(self, key: str) -> bool:
        """Whether a part has been run, by any plan: its first run is slower than the others."""
        return key in self._warm

    def run(self, key: str, spec: PartSpec, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Runs a part: its outputs by name. Raises as `get`."""
        session = self.get(key, spec)
        names = list(spec.outputs)
        outputs = run_foreign(session, names, feed) if key in self._foreign else session.run(names, feed)
        self._warm.add(key)
        return dict(zip(names, outputs, strict=True))


def whole_session(onnx: bytes, weights_folder: Path, *, threads: int = 0) -> ort.InferenceSession:
    """A simplified, weightless model in one session; `threads` 0 leaves the choice to onnxruntime."""
    return ort.InferenceSession(onnx, _options(weights_folder, threads), providers=["CPUExecutionProvider"])


def _part_options(weights_folder: Path, threads: int) -> ort.SessionOptions:
    options = _options(weights_folder, threads)
    share_arena(options)
    return options


def _options(weights_folder: Path, threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # whoever runs a part reports what fails
    # Threads that spin while the others are late take time from sockets and from other peers of the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(session_options_folder_key, str(weights_folder))
    options.add_session_config_entry(*MATMUL_ACCURACY)
    return options


class FrameStore:
    """The buffers of one device, or of the requester, under one plan."""

    def __init__(self, plan: ExecutionPlan) -> None:
        self._plan = plan
        self._frames: dict[int, dict[tuple[str, Any], Any]] = {}
        self._made = {(task.id, output.tensor): output.rows for task in plan.tasks for output in task.outputs}

    def __len__(self) -> int:
        return len(self._frames)

    def put_transfer(self, frame: int, transfer: int, rows: Array | Coded) -> None:
        """Keeps rows that arrived, as `received` gives them. Coded ones are decoded where they are first
        needed, in the thread that computes."""
        self._frames.setdefault(frame, {})["transfer", transfer] = rows

    def put_inputs(self, frame: int, feed: Mapping[str, Array]) -> None:
        """Keeps the model's inputs, whole (at the requester)."""
        kept = self._frames.setdefault(frame, {})
        for name, array in feed.items():
            kept["input", name] = array

    def put_outputs(self, frame: int, task: int, arrays: Mapping[str, Array]) -> None:
        """Keeps what a task made."""
        kept = self._frames.setdefault(frame, {})
        for name, array in arrays.items():
            kept["task", (task, name)] = array

    def rows_to_send(self, frame: int, transfer: int) -> Array:
        """The rows of a transfer, C-contiguous; copied only where rows do not lie together.

        A tensor whose shape depends on the data comes as the bytes that `from_payload` expects of it.
        """
        wanted = self._plan.transfers[transfer]
        piece = Piece(wanted.rows, task=wanted.task)
        array = _contiguous(self._piece(frame, wanted.tensor, piece))
        return _with_shape(array) if self._plan.tensors[wanted.tensor].dynamic else array

    def put_coded(self, frame: int, transfer: int, coded: Coded) -> None:
        """Keeps what a transfer will send, until `take_coded`."""
        self._frames.setdefault(frame, {})["coded", transfer] = coded

    def take_coded(self, frame: int, transfer: int) -> Coded | None:
        """What `put_coded` kept; None if that was nothing."""
        coded: Coded | None = self._frames[frame].pop(("coded", transfer), None)
        return coded

    def assemble(self, frame: int, wanted: TaskInput) -> Array:
        """One input of a task, C-contiguous. Without a copy where one buffer holds just these rows."""
        if len(wanted.pieces) == 1:
            return _contiguous(self._piece(frame, wanted.tensor, wanted.pieces[0]))
        info = self._plan.tensors[wanted.tensor]
        axis = info.row_axis
        assert axis is not None
        array = np.empty(info.part_shape(wanted.rows), numpy_dtype(info.dtype))
        for piece in wanted.pieces:
            at = slice(piece.rows.start - wanted.rows.start, piece.rows.stop - wanted.rows.start)
            array[(slice(None),) * axis + (at,)] = self._piece(frame, wanted.tensor, piece)
        return array

    def result(self, frame: int) -> list[Array]:
        """The model's outputs, in its order (at the requester)."""
        return [self.assemble(frame, wanted) for wanted in self._plan.results]

    def forget(self, frame: int) -> None:
        """Frees everything of a frame."""
        self._frames.pop(frame, None)

    def _piece(self, frame: int, tensor: str, piece: Piece) -> Array:
        kept = self._frames[frame]
        if piece.transfer >= 0:
            array, there = self._arrived(kept, piece.transfer), self._plan.transfers[piece.transfer].rows
        elif piece.task >= 0:
            array, there = kept["task", (piece.task, tensor)], self._made[piece.task, tensor]
        else:
            array = kept["input", tensor]
            there = Rows(0, self._plan.tensors[tensor].rows)
        axis = self._plan.tensors[tensor].row_axis
        if axis is None or there == piece.rows:
            return array
        at = slice(piece.rows.start - there.start, piece.rows.stop - there.start)
        return array[(slice(None),) * axis + (at,)]

    def _arrived(self, kept: dict[tuple[str, Any], Any], transfer: int) -> Array:
        found = kept["transfer", transfer]
        if type(found) is Coded:
            planned = self._plan.transfers[transfer]
            found = kept["transfer", transfer] = decode_rows(
                found, self._plan.tensors[planned.tensor], planned.rows
            )
        array: Array = found
        return array


class Engine:
    """Runs one device's tasks of one plan."""

    def __init__(self, plan: ExecutionPlan, device: int, sessions: PartSessions, store: FrameStore) -> None:
        self._plan = plan
        self._tasks = {task.id: task for task in plan.tasks if task.device == device}
        self._sessions = sessions
        self._store = store

    @property
    def parts(self) -> set[str]:
        """Keys of the sessions that this device needs."""
        return {task.part for task in self._tasks.values()}

    def prepare(self) -> None:
        """Builds every session and runs each new one once on zeros, so that the first frame is not slow.

        Raises:
            ModelError: onnxruntime refuses a part.
        """
        for task in self._tasks.values():
            self._sessions.get(task.part, self._plan.parts[task.part])
            if self._sessions.is_warm(task.part):
                continue
            with suppress(Exception):  # zeros may be no size, axis or divisor; the frame's own data will be
                self._run(task, {item.tensor: self._zeros(item) for item in task.inputs})

    def run(self, frame: int, task_id: int) -> None:
        """Assembles a task's inputs, runs it, and keeps its outputs."""
        task = self._tasks[task_id]
        feed = {item.tensor: self._store.assemble(frame, item) for item in task.inputs}
        self._store.put_outputs(frame, task_id, self._run(task, feed))

    def _run(self, task: Task, feed: dict[str, Array]) -> dict[str, Array]:
        return self._sessions.run(task.part, self._plan.parts[task.part], feed)

    def _zeros(self, item: TaskInput) -> Array:
        info = self._plan.tensors[item.tensor]
        dtype = numpy_dtype(info.dtype)
        return np.full(info.part_shape(item.rows), "" if dtype.hasobject else 0, dtype)


def numpy_dtype(name: str) -> np.dtype[Any]:
    """numpy's dtype of a tensor's dtype name, bfloat16 and the like included."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return found


def _contiguous(array: Array) -> Array:
    """`np.ascontiguousarray`, but a scalar stays one, and a sequence too."""
    if not isinstance(array, np.ndarray) or array.flags.c_contiguous:
        return array
    return np.ascontiguousarray(array)


def copied(value: Any) -> Any:
    """A copy of a frame's input: an array, a sequence of arrays, or None."""
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value if value is None else np.array(value, order="C")


def owned(value: Any) -> Any:
    """A value that its holder may change: an array of its own memory, a list of such, or None."""
    if isinstance(value, np.ndarray):
        return value if value.flags.writeable and value.base is None else value.copy()
    return [owned(item) for item in value] if isinstance(value, list) else value


def _with_shape(value: Any) -> Array:
    """A value as bytes that tell what it is: an array with its shape, a sequence of such, or None."""
    plain = [_plain(item) for item in value] if isinstance(value, list) else [None]
    plain = _plain(value) if isinstance(value, np.ndarray) else plain
    return np.frombuffer(msgpack.packb(plain), np.uint8)


def _plain(array: Array) -> list[Any]:
    data = [str(item) for item in array.ravel()] if array.dtype.hasobject else array.tobytes()
    return [array.dtype.name, list(array.shape), data]


def _from_shaped(payload: Buffer, info: TensorInfo) -> Any:
    plain: Any = unpack(payload)
    if not isinstance(plain, list):
        raise ProtocolError("a tensor whose shape depends on the data came without one")
    if info.dtype == "object" and plain == [None]:
        return None
    if info.dtype == "object" and all(isinstance(item, list) for item in plain):
        return [_from_plain(item, info) for item in plain]
    return _from_plain(plain, info)


def _from_plain(plain: list[Any], info: TensorInfo) -> Array:
    kind, shape, data = plain if len(plain) == 3 else (None, None, None)
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ProtocolError("a tensor whose shape depends on the data came without one")
    if type(kind) is not str or kind not in DTYPES or info.dtype not in ("object", kind):
        raise ProtocolError(f"a tensor of dtype {info.dtype} came as {str(kind)[:20]}")
    strings = kind == "object"
    if not isinstance(data, list if strings else bytes):
        raise ProtocolError(f"a tensor of dtype {kind} came as {type(data).__name__}")
    raw = data if isinstance(data, bytes) else bytes(msgpack.packb(data))
    fixed = replace(info, dtype=kind, shape=tuple(shape), dynamic=False)
    try:
        return from_payload(raw, fixed, ALL)
    except ValueError:  # too many axes, or sizes whose product numpy cannot count
        raise ProtocolError("a tensor came with a shape that no array can have") from None


def to_payload(array: Array) -> Buffer:
    """The raw bytes of a C-contiguous array, without a copy; strings as a msgpack list."""
    if array.dtype.hasobject:
        return bytes(msgpack.packb([str(item) for item in array.ravel()]))
    return array.reshape(-1).view(np.uint8).data


def received(coded: Coded, transfer: Transfer, info: TensorInfo) -> Array | Coded:
    """Rows that came, for a FrameStore: an array over the payload, or what is still to be decoded.

    Raises:
        ProtocolError: the payload cannot be the rows of this transfer.
    """
    check_rows(coded, transfer, info)
    return coded if coded.coding != RAW else from_payload(coded.payload, info, transfer.rows)


def from_payload(payload: Buffer, info: TensorInfo, rows: Rows) -> Array:
    """An array over the payload, without a copy.

    Raises:
        ProtocolError: the payload's size is not that of these rows.
    """
    if info.dynamic:
        shaped: Array = _from_shaped(payload, info)
        return shaped
    shape = info.part_shape(rows)
    if info.dtype == "object":
        items = unpack(payload)
        if not isinstance(items, list) or len(items) != prod(shape) or any(type(i) is not str for i in items):
            raise ProtocolError(f"{prod(shape)} strings were expected")
        array = np.empty(len(items), object)
        array[:] = items
        return array.reshape(shape)
    dtype = numpy_dtype(info.dtype)
    if memoryview(payload).nbytes != dtype.itemsize * prod(shape):
        raise ProtocolError(
            f"rows of shape {shape} and dtype {dtype} do not have {memoryview(payload).nbytes} bytes"
        )
    return np.frombuffer(payload, dtype).reshape(shape)
