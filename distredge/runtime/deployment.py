"""What a requester keeps of its peers and of a plan that they execute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from distredge.errors import PeerError
from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.plan.wire import LOSSLESS
from distredge.protocol.events import Members
from distredge.protocol.succession import Succession, involved_devices
from distredge.runtime.blobs import BlobSource
from distredge.runtime.engine import Array, FrameStore
from distredge.runtime.outgoing import Outgoing
from distredge.runtime.tally import Arrival, Measured, Review, TallyReport

STANDBY_BYTES = 256 * 1024 * 1024
"""Weights of all plans that are kept ready for the loss of a peer; for larger models there are none."""


@dataclass(frozen=True)
class PeerAddress:
    """A peer to connect to. `key` is its public key; empty for a plain connection."""

    name: str
    address: str
    key: str = ""


class Processes(Protocol):
    """Whoever knows whether the processes behind the peers live."""

    def endings(self) -> Mapping[int, str]:
        """Peers whose process has ended, by number, and how."""
        ...

    def revive(self, at: int) -> str | None:
        """The address of a peer; its process is started again if it has ended. None while it starts."""
        ...


class Deployment:
    """One plan on the peers that it involves, and the requester's buffers for it.

    Args:
        epoch: of its messages.
        plan: the plan.
        line: whose plan it is.
        is_local: all peers are on this machine.
    """

    def __init__(self, epoch: int, plan: ExecutionPlan, line: Line, *, is_local: bool = False) -> None:
        self.epoch = epoch
        self.plan = plan
        self.line = line
        self.ways: tuple[Deployment, ...] = (self,)
        """This plan and those beside it, which are brought to the peers and used together."""
        self.involved = involved_devices(plan)
        self.store = FrameStore(plan)
        self.outgoing = Outgoing(plan, REQUESTER, never=is_local)
        self.measured = Measured()
        self._transits: dict[int, float] = {}
        self.frames: set[int] = set()
        """Frames whose inputs are in the store."""
        self.failure: PeerError | None = None
        """Why a peer could not prepare it; see `why`."""
        self.routes = {
            t.id: (t.target, (t.id, t.tensor, t.rows.start, t.rows.stop, REQUESTER))
            for t in plan.transfers
            if t.source == REQUESTER
        }

    @property
    def is_ready(self) -> bool:
        """Whether frames may run under it."""
        return self.line.state.is_ready(self.epoch)

    @property
    def are_ready(self) -> bool:
        """Whether frames may run under it and those beside it."""
        return all(way.is_ready for way in self.ways)

    @property
    def is_over(self) -> bool:
        """Whether it, or one beside it, was retired, or ended because a peer that it involves was lost."""
        epochs = self.line.state.epochs
        return any(way.epoch not in epochs for way in self.ways)

    @property
    def why(self) -> PeerError | None:
        """Why a peer could not prepare it, or one beside it."""
        return next((way.failure for way in self.ways if way.failure is not None), None)

    def book(self, at: int, report: TallyReport, offset_s: Callable[[int], float]) -> None:
        """Adds what a peer says that its parts and transfers took.

        Args:
            at: the peer.
            report: of this plan.
            offset_s: of each peer's clock; see `Clocks`.
        """
        plan = self.plan
        for task, times, seconds in report.runs:
            if 0 <= task < len(plan.tasks) and plan.tasks[task].device == at:
                self.measured.ran(task, times, seconds)
        for number, seconds in report.arrivals:
            if 0 <= number < len(plan.transfers) and plan.transfers[number].target == at:
                source = plan.transfers[number].source
                sent_by = 0.0 if source == REQUESTER else offset_s(source)
                self.arrived(number, seconds - offset_s(at) + sent_by)

    def arrived(self, transfer: int, seconds: float) -> None:
        """A transfer took so long, as far as clocks agree."""
        self.measured.arrived(transfer, seconds)
        if self.plan.transfers[transfer].source == REQUESTER:
            self.outgoing.arrived(transfer, seconds)
        elif self.plan.transfers[transfer].coding == LOSSLESS:
            self._transits[transfer] = min(seconds, self._transits.get(transfer, seconds))

    def take_transits(self, source: int) -> list[Arrival]:
        """What the transfers of a peer took since this was last asked, where it wants to know."""
        own = [number for number in self._transits if self.plan.transfers[number].source == source]
        return [(number, self._transits.pop(number)) for number in own]


class Line:
    """The plans of one model and input shape, one after another.

    Args:
        members: peers that live.
        blobs: the model's weights and graph.
        find: decides for peers that are left, in a thread of its own; None: nobody does.
        alone: computes a whole frame in this process, where no peer is left; None: nobody does.
    """

    def __init__(
        self,
        members: Iterable[int],
        blobs: Sequence[BlobSource],
        find: Callable[[Members], ExecutionPlan] | None = None,
        alone: Callable[[Mapping[str, Array]], list[Array]] | None = None,
    ) -> None:
        self.blobs = tuple(blobs)
        self.find = find
        self.alone = alone
        peers = frozenset(members)
        copies = len(peers) * sum(blob.total_bytes for blob in blobs)
        self.may_look_ahead = find is not None and copies <= STANDBY_BYTES
        """Whether plans for losses are made ahead of time."""
        self.state = Succession(peers, standbys=self.may_look_ahead, clock=time.monotonic)
        self.review: Callable[[Review], ExecutionPlan | None] | None = None
        """Looks at what the plan in use takes, in a thread of its own, and may find another one."""
        self.successor: Deployment | None = None
        """A plan that a review found, until it is in use."""
        self.stuck_s = inf
        """Since when nothing can run."""
