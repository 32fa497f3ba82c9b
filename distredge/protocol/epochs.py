"""Which epochs of a session a peer serves, and what it does with messages of others."""

from __future__ import annotations

from enum import Enum
from typing import Generic, TypeVar

from distredge.errors import ProtocolError

Plan = TypeVar("Plan")
REMEMBERED = 1024
"""Epochs that are over and still known as such."""


class Verdict(Enum):
    """What to do with rows, by their epoch."""

    SERVED = "rows of a plan that is in use or in preparation"
    LATE = "rows of a plan that is over"
    UNKNOWN = "rows for no plan"


class EpochBook(Generic[Plan]):
    """A session's epochs on one peer. They may be announced in any order, each once.

    Attributes:
        plans: what is kept of each epoch that is served.
    """

    def __init__(self) -> None:
        self.plans: dict[int, Plan] = {}
        self._retired: dict[int, None] = {}

    def announce(self, epoch: int, plan: Plan) -> None:
        """Serves an epoch from now on.

        Raises:
            ProtocolError: it was announced before.
        """
        if epoch in self.plans or epoch in self._retired:
            raise ProtocolError("an epoch was announced twice")
        self.plans[epoch] = plan

    def retire(self, epoch: int) -> Plan:
        """Ends an epoch, and returns what was kept of it.

        Raises:
            ProtocolError: it is not served.
        """
        if epoch not in self.plans:
            raise ProtocolError("there is no such plan")
        self._retired[epoch] = None
        if len(self._retired) > REMEMBERED:
            del self._retired[next(iter(self._retired))]
        return self.plans.pop(epoch)

    def judge(self, epoch: int) -> Verdict:
        """What to do with rows of an epoch."""
        if epoch in self.plans:
            return Verdict.SERVED
        return Verdict.LATE if epoch in self._retired else Verdict.UNKNOWN
