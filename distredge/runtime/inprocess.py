"""A whole cluster in one thread: the real state machines, engine and wire format, in seeded disorder."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from distredge.errors import DistrEdgeError
from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.plan.wire import LOSSLESS
from distredge.protocol.events import (
    DeliverFrame,
    Event,
    ForgetFrame,
    FrameSubmitted,
    Instruction,
    PartFinished,
    RejectRows,
    RowsArrived,
    RunPart,
    SendRows,
)
from distredge.protocol.messages import RowsMessage, decode, encode
from distredge.protocol.provider import ProviderState
from distredge.protocol.requester import RequesterState
from distredge.runtime.coding import Coded, decode_rows
from distredge.runtime.engine import Array, Engine, FrameStore, PartSessions, received
from distredge.runtime.outgoing import Outgoing


class InProcessCluster:
    """Executes a plan without sockets. Every message is encoded, held back, and decoded.

    Args:
        plan: the compiled plan.
        sessions: onnxruntime sessions; all devices share them.
        rng: decides what happens next among the messages under way and the parts running.
    """

    def __init__(self, plan: ExecutionPlan, sessions: PartSessions, rng: random.Random) -> None:
        self._plan = plan
        self._rng = rng
        self._states: dict[int, ProviderState | RequesterState] = {REQUESTER: RequesterState(plan)}
        self._stores = {REQUESTER: FrameStore(plan)}
        self._outgoing = {
            at: Outgoing(plan, at, always=True) for at in (REQUESTER, *range(len(plan.devices)))
        }
        self._engines: dict[int, Engine] = {}
        for device in range(len(plan.devices)):
            self._states[device] = ProviderState(plan, device)
            self._stores[device] = FrameStore(plan)
            self._engines[device] = Engine(plan, device, sessions, self._stores[device])
        self._pending: list[tuple[int, bytes, bytes] | tuple[int, RunPart]] = []
        self._results: dict[int, list[Array]] = {}

    def run(self, feeds: Sequence[Mapping[str, Array]]) -> list[list[Array]]:
        """Submits all frames at once and returns their outputs in order.

        Raises:
            DistrEdgeError: the plan comes to a standstill, or a message is rejected.
        """
        for frame, feed in enumerate(feeds):
            self._stores[REQUESTER].put_inputs(frame, feed)
            self._tell(REQUESTER, FrameSubmitted(frame))
        while self._pending:
            at = self._rng.randrange(len(self._pending))
            self._pending[at], self._pending[-1] = self._pending[-1], self._pending[at]
            match self._pending.pop():
                case (device, RunPart(frame, task)):
                    self._engines[device].run(frame, task)
                    self._tell(device, PartFinished(frame, task))
                case (device, bytes() as header, bytes() as payload):
                    self._receive(device, header, payload)
        if len(self._results) != len(feeds):
            raise DistrEdgeError(f"only {len(self._results)} of {len(feeds)} frames were answered")
        left = [device for device, store in self._stores.items() if device != REQUESTER and len(store)]
        if left:
            raise DistrEdgeError(f"devices {left} kept buffers of frames that are over")
        return [self._results[frame] for frame in range(len(feeds))]

    def _receive(self, device: int, header: bytes, payload: bytes) -> None:
        message = decode(header)
        assert isinstance(message, RowsMessage)
        transfer = self._plan.transfers[message.transfer]
        rows = received(Coded(message.coding, payload), transfer, self._plan.tensors[transfer.tensor])
        self._stores[device].put_transfer(message.frame, transfer.id, rows)
        self._tell(device, RowsArrived(message.frame, transfer.id))

    def _tell(self, device: int, event: Event) -> None:
        for instruction in self._states[device].handle(event):
            self._perform(device, instruction)

    def _perform(self, device: int, instruction: Instruction) -> None:
        match instruction:
            case RunPart():
                self._pending.append((device, instruction))
            case SendRows(frame, transfer):
                self._send(device, frame, transfer)
            case DeliverFrame(frame):
                self._results[frame] = self._stores[device].result(frame)
                self._stores[device].forget(frame)
            case ForgetFrame(frame):
                self._stores[device].forget(frame)
            case RejectRows():
                raise DistrEdgeError(f"device {device}: {instruction}")

    def _send(self, device: int, frame: int, number: int) -> None:
        transfer = self._plan.transfers[number]
        rows = self._stores[device].rows_to_send(frame, number)
        coding, payload = coded = self._outgoing[device].code(number, rows)
        info = self._plan.tensors[transfer.tensor]
        if coding == LOSSLESS and decode_rows(coded, info, transfer.rows).tobytes() != rows.tobytes():
            raise DistrEdgeError(f"rows of {transfer.tensor!r} do not unpack to what was packed")
        message = RowsMessage(
            session=0,
            epoch=0,
            frame=frame,
            transfer=number,
            tensor=transfer.tensor,
            start=transfer.rows.start,
            stop=transfer.rows.stop,
            sender=device,
            sent_s=0.0,
            coding=coding,
        )
        self._pending.append((transfer.target, encode(message), bytes(payload)))
