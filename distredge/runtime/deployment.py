"""What a requester keeps of its peers and of a plan that they execute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.protocol.requester import RequesterState
from distredge.runtime.engine import FrameStore


@dataclass(frozen=True)
class PeerAddress:
    """A peer to connect to. `key` is its public key; empty for a plain connection."""

    name: str
    address: str
    key: str = ""


class Processes(Protocol):
    """Whoever knows whether the processes behind the peers live."""

    def find_dead(self) -> tuple[str, str] | None:
        """Name of a peer whose process has ended, and how; None if all live."""
        ...


class Deployment:
    """One plan on all its peers, and the requester's side of it."""

    def __init__(self, epoch: int, plan: ExecutionPlan) -> None:
        self.epoch = epoch
        self.plan = plan
        self.state = RequesterState(plan)
        self.store = FrameStore(plan)
        self.ready: set[int] = set()
        self.routes = {
            t.id: (t.target, (t.id, t.tensor, t.rows.start, t.rows.stop, REQUESTER))
            for t in plan.transfers
            if t.source == REQUESTER
        }

    @property
    def is_ready(self) -> bool:
        """Whether frames may be submitted."""
        return len(self.ready) == len(self.plan.devices)
