"""What one device sends under one plan: coded as the plan says, and losslessly only where that pays."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from distredge.plan.execution import ExecutionPlan
from distredge.plan.wire import LOSSLESS, RAW, ROUNDED
from distredge.runtime.coding import Array, Coded, encode_rows
from distredge.runtime.engine import to_payload

LEAST_BYTES = 4096
"""Of a message that is worth packing."""
GRACE_S = 2e-3
"""Of what a message takes: so much is latency, and noise of clocks and schedulers, which packing does not
shorten."""
ENDS = 4.0
"""Packing must save so many times the seconds that it takes: there is unpacking too, maybe on a slower
device, and both take the time from computing, while bytes under way often do not."""
HOPED_RATIO, HOPED_BYTES_PER_S = 0.5, 300e6
"""Of what was never packed yet: half the numbers behind a Relu are zeros."""
TRY_AGAIN = 64
"""Messages after which packing that did not pay is tried again: the data may be others by now."""
REPORTS = 6
"""How many of the latest things heard of a link count; the best of them does. Under load, messages wait for
processors too, and packing would take even more of those."""
NEWEST = 0.2
"""How much the newest of measured values counts in their moving average."""


@dataclass(slots=True)
class Worth:
    """Whether packing pays for one transfer, by what was measured of it.

    Attributes:
        size: bytes of its rows in memory.
        ratio, pack_s: bytes packed over bytes in memory, and seconds per byte of that.
    """

    size: int
    ratio: float = HOPED_RATIO
    pack_s: float = 1 / HOPED_BYTES_PER_S
    _sent: int = 0
    _skipped: int = 0
    _heard: deque[float] = field(default_factory=lambda: deque(maxlen=REPORTS))

    @property
    def link_s(self) -> float:
        """Seconds that each byte takes to its receiver; 0 as long as nobody has told."""
        return min(self._heard, default=0.0)

    @property
    def pays(self) -> bool:
        """Whether the rows are sooner there when they are packed."""
        return self._saves(self.ratio)

    def _saves(self, ratio: float) -> bool:
        return self.size >= LEAST_BYTES and self.link_s * (1.0 - ratio) > ENDS * self.pack_s

    def ask(self) -> bool:
        """Whether to pack the next message; now and then that is a trial."""
        if self.pays:
            return True
        self._skipped += 1
        return self._skipped % TRY_AGAIN == 0 and self._saves(HOPED_RATIO)

    def packed(self, size: int, seconds: float) -> None:
        """A message was packed to so many bytes (its own size, where that made it no smaller)."""
        self.ratio += NEWEST * (size / self.size - self.ratio)
        self.pack_s += NEWEST * (seconds / self.size - self.pack_s)

    def sent(self, size: int) -> None:
        """A message leaves with so many bytes."""
        self._sent = size

    def arrived(self, seconds: float) -> None:
        """A message took so long to its receiver."""
        if self._sent:
            self._heard.append(max(0.0, seconds - GRACE_S) / self._sent)


class Outgoing:
    """Codes one device's rows.

    Args:
        plan: the compiled plan.
        device: its number, or REQUESTER.
        always: pack losslessly whatever it costs, as verification does.
        never: pack nothing: all ends are on one machine.
    """

    def __init__(
        self, plan: ExecutionPlan, device: int, *, always: bool = False, never: bool = False
    ) -> None:
        self._plan, self._always = plan, always
        as_they_are = (RAW, LOSSLESS) if never else (RAW,)
        own = [t for t in plan.transfers if t.source == device and t.coding not in as_they_are]
        self.worth = {t.id: Worth(plan.transfer_bytes(t)) for t in own if t.coding == LOSSLESS}
        self._by_task: dict[int, list[int]] = {}
        for transfer in own:
            self._by_task.setdefault(transfer.task, []).append(transfer.id)

    def of_task(self, task: int) -> list[int]:
        """Transfers of what a task makes that may be coded."""
        return self._by_task.get(task, [])

    def code(self, transfer: int, array: Array) -> Coded:
        """The rows of a transfer as they are to travel.

        Args:
            transfer: its number.
            array: C-contiguous.
        """
        planned, worth = self._plan.transfers[transfer], self.worth.get(transfer)
        packs = worth is not None and (self._always or worth.ask())
        if array.size == 0 or not (packs or planned.coding in ROUNDED):
            return self._raw(worth, array)
        info = self._plan.tensors[planned.tensor]
        start = time.perf_counter()
        coded = encode_rows(array, planned.coding, info)
        if worth is not None:
            size = array.nbytes if coded is None else len(coded.payload)
            worth.packed(size, time.perf_counter() - start)
            worth.sent(size)
        return coded or self._raw(worth, array)

    def _raw(self, worth: Worth | None, array: Array) -> Coded:
        if worth is not None:
            worth.sent(array.nbytes)
        return Coded(RAW, to_payload(array))

    def arrived(self, transfer: int, seconds: float) -> None:
        """Says how long the rows of a transfer took to their receiver."""
        worth = self.worth.get(transfer)
        if worth is not None:
            worth.arrived(seconds)
