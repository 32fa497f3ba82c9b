"""One plan on one peer: its state machine, its buffers and its engine."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from math import inf

from distredge.errors import ProtocolError, StrategyError
from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.plan.wire import RAW
from distredge.protocol.events import (
    ForgetFrame,
    FrameDropped,
    Instruction,
    PartFinished,
    RejectRows,
    RowsArrived,
    RunPart,
)
from distredge.protocol.messages import Buffer
from distredge.protocol.provider import ProviderState
from distredge.runtime.coding import Coded
from distredge.runtime.compute import DutyCycle
from distredge.runtime.engine import Engine, FrameStore, PartSessions, numpy_dtype, received, to_payload
from distredge.runtime.outgoing import Outgoing
from distredge.runtime.tally import Tally
from distredge.runtime.trace import TraceEvent
from distredge.runtime.transport import RowsFields, is_loopback, size_of

LOOSE_BYTES = 16 * 1024 * 1024
"""Of a payload whose size no plan foretells: strings, and tensors whose shape depends on the data."""

QUICK_S = 300e-6
"""A part that takes less is run where its rows arrive: handing it to another thread costs as much."""


class HostedPlan:
    """A plan of one session, from when it is announced until it is retired.

    The I/O thread brings rows, a compute thread tells of finished parts: a lock guards the state machine.

    Args:
        session, epoch: of all its messages.
        device: this peer's number in it.
        addresses, keys: where the plan's devices listen, and their public keys.
        trace: where to write what happened.
        duty: the rest that the compute unit takes after each part.
    """

    def __init__(
        self,
        session: int,
        epoch: int,
        device: int,
        addresses: Sequence[str],
        keys: Sequence[str],
        trace: deque[TraceEvent],
        duty: DutyCycle,
    ) -> None:
        self.session, self.epoch, self.device = session, epoch, device
        self.addresses, self.keys = tuple(addresses), tuple(keys)
        self.trace = trace
        self.tally = Tally()
        self._duty = duty
        self.is_built = False
        self.is_ready = False
        self.is_over = False
        self.plan: ExecutionPlan
        self.outgoing: Outgoing
        self.store: FrameStore
        self._engine: Engine
        self._state: ProviderState
        self._lock = threading.Lock()
        self._running = -1
        self._forget_later = -1
        self._cost_s: dict[int, float] = {}
        self._early: list[tuple[RowsFields, Buffer]] = []
        self.kept_bytes = 0
        """Rows kept for frames that are under way, and what their tasks make."""
        self._kept: dict[int, int] = {}
        self._made_bytes = 0
        self._routes: dict[int, tuple[int, tuple[int, str, int, int, int]]] = {}

    # ------------------------------------------------------------------ preparing

    def build(self, plan: ExecutionPlan, sessions: PartSessions, limit_bytes: int) -> None:
        """Builds and warms everything that the first frame needs.

        Args:
            plan: valid.
            sessions: of the plan's graph.
            limit_bytes: of a frame's rows and results on this peer.

        Raises:
            StrategyError: a frame is larger, or the plan names a type that there is not.
            ModelError: onnxruntime refuses a part.
        """
        self._made_bytes = self._measure(plan, limit_bytes)
        self.plan = plan
        self.store = FrameStore(plan)
        self.outgoing = Outgoing(plan, self.device, never=all(map(is_loopback, self.addresses)))
        self._engine = Engine(plan, self.device, sessions, self.store)
        self._engine.prepare()
        self._state = ProviderState(plan, self.device)
        self._cost_s = dict.fromkeys((task.id for task in plan.tasks if task.device == self.device), inf)
        for t in plan.transfers:
            if t.source == self.device:
                self._routes[t.id] = t.target, (t.id, t.tensor, t.rows.start, t.rows.stop, self.device)
        self.is_built = True

    def _measure(self, plan: ExecutionPlan, limit_bytes: int) -> int:
        """Bytes that a frame's tasks make here. Checked before any is allocated."""
        for info in plan.tensors.values():
            numpy_dtype(info.dtype)
        own = [task for task in plan.tasks if task.device == self.device]
        read = [sum(plan.row_bytes(item.tensor) * item.rows.size for item in task.inputs) for task in own]
        made = sum(plan.row_bytes(out.tensor) * out.rows.size for task in own for out in task.outputs)
        came = sum(plan.transfer_bytes(t) for t in plan.transfers if t.target == self.device)
        needed = max(made + came, *read, 0)
        if needed > limit_bytes:
            raise StrategyError(
                f"a frame takes {needed / 1e6:.0f} MB here, and {limit_bytes / 1e6:.0f} MB are the limit; "
                "use more peers"
            )
        return made

    @property
    def parts(self) -> set[str]:
        """Keys of the sessions in use."""
        return self._engine.parts

    @property
    def neighbours(self) -> set[int]:
        """Devices that this one sends to."""
        return {target for target, _ in self._routes.values() if target != REQUESTER}

    def sends_to(self, address: str) -> bool:
        """Whether this peer sends to the device that listens there; not known before it is built."""
        return self.is_built and any(self.addresses[device] == address for device in self.neighbours)

    def keep_early(self, fields: RowsFields, payload: Buffer) -> None:
        """Keeps rows until the plan is ready."""
        self.kept_bytes += size_of(payload)
        self._early.append((fields, payload))

    def take_early(self) -> list[tuple[RowsFields, Buffer]]:
        """What was kept; the plan is ready now."""
        early, self._early = self._early, []
        self.kept_bytes -= sum(size_of(payload) for _, payload in early)
        return early

    # ------------------------------------------------------------------ running

    def rows_arrived(self, fields: RowsFields, payload: Buffer) -> list[Instruction]:
        """Takes rows, and says what to do now.

        Raises:
            ProtocolError: they are not what the plan says that this transfer brings.
        """
        _, _, frame, number, tensor, start, stop, sender, sent_s, coding = fields
        now = time.monotonic()
        transfer = self.plan.transfers[number] if 0 <= number < len(self.plan.transfers) else None
        if transfer is None or (transfer.tensor, *transfer.rows, transfer.source) != (
            tensor,
            start,
            stop,
            sender,
        ):
            raise ProtocolError("rows came that are no transfer of the plan")
        info, size = self.plan.tensors[tensor], size_of(payload)
        if (info.dynamic or info.dtype == "object") and size > LOOSE_BYTES:
            raise ProtocolError("strings, or a tensor of any shape, are over the limit")
        rows = received(Coded(coding, payload), transfer, info)
        with self._lock:
            instructions = self._state.handle(RowsArrived(frame, number))
            if not instructions or type(instructions[0]) is not RejectRows:
                self.store.put_transfer(frame, number, rows)
                self._keep(frame, size if coding == RAW else self.plan.transfer_bytes(transfer))
                self._note_running(instructions)
        self.tally.arrived(number, now - sent_s)
        self.trace.append(TraceEvent("receive", frame, number, now, now, size))
        return instructions

    def _keep(self, frame: int, size: int) -> None:
        if frame not in self._kept:
            self._kept[frame] = 0
            size += self._made_bytes
        self._kept[frame] += size
        self.kept_bytes += size

    def forget(self, frame: int) -> None:
        """Frees everything of a frame."""
        self.store.forget(frame)
        self.kept_bytes -= self._kept.pop(frame, 0)

    def is_quick(self, task: int) -> bool:
        """Whether a part is over before another thread would have begun."""
        return self._cost_s[task] < QUICK_S

    def usual_s(self, task: int) -> float:
        """Seconds that a part takes; infinity before it has been run."""
        return self._cost_s[task]

    def run(self, frame: int, task: int) -> None:
        """Computes a part, and codes what of it is to be sent so. Raises whatever goes wrong in it."""
        start = time.monotonic()
        self._engine.run(frame, task)
        for transfer in self.outgoing.of_task(task):
            coded = self.outgoing.code(transfer, self.store.rows_to_send(frame, transfer))
            self.store.put_coded(frame, transfer, coded)
        self._duty.rest_after(time.monotonic() - start)
        end = time.monotonic()
        before = self._cost_s[task]
        took = end - start
        # A moving average that one interruption by the system does not spoil.
        self._cost_s[task] = took if before == inf else before + 0.2 * (min(took, 4 * before) - before)
        self.tally.ran(task, took)
        self.trace.append(TraceEvent("run", frame, task, start, end, 0))

    def finished(self, frame: int, task: int) -> list[Instruction]:
        """What to do now that a part is done."""
        with self._lock:
            self._running = -1
            instructions = self._state.handle(PartFinished(frame, task))
            self._note_running(instructions)
            if frame == self._forget_later:
                self._forget_later = -1
                instructions.insert(0, ForgetFrame(frame))
        return instructions

    def _note_running(self, instructions: list[Instruction]) -> None:
        if instructions and type(last := instructions[-1]) is RunPart:
            self._running = last.frame

    def drop(self, frame: int) -> list[Instruction]:
        """Gives a frame up. What a running part still needs is forgotten after it."""
        with self._lock:
            instructions = self._state.handle(FrameDropped(frame))
            if instructions and self._running == frame:
                self._forget_later = frame
                return []
        return instructions

    def coded(self, frame: int, transfer: int) -> Coded:
        """The rows of a transfer as they are to travel."""
        coded = self.store.take_coded(frame, transfer)
        return coded or Coded(RAW, to_payload(self.store.rows_to_send(frame, transfer)))

    def route(self, transfer: int) -> tuple[int, tuple[int, str, int, int, int]]:
        """Where a transfer goes, and the fields of its header from `transfer` to `sender`."""
        return self._routes[transfer]
