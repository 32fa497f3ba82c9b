"""What runs under faults are drawn from: plans for every set of devices, and the state machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.protocol.epochs import EpochBook
from distredge.protocol.events import Members
from distredge.protocol.provider import ProviderState
from distredge.protocol.succession import Succession, involved_devices
from distredge.sim.fault_peer import Hosted


@dataclass(frozen=True)
class Parts:
    """The state machines under test; a test of the tests puts broken ones in their place."""

    succession: Callable[[Members], Succession] = Succession
    provider: Callable[[ExecutionPlan, int], ProviderState] = ProviderState
    book: Callable[[], EpochBook[Hosted]] = EpochBook


class Facts:
    """What must be known of a plan in every run, made once."""

    def __init__(self, plan: ExecutionPlan) -> None:
        self.involved = tuple(sorted(involved_devices(plan)))
        self.sources = {
            task.id: frozenset((piece.transfer, piece.task) for item in task.inputs for piece in item.pieces)
            for task in plan.tasks
        }
        self.targets: dict[int, set[int]] = {device: set() for device in range(len(plan.devices))}
        for transfer in plan.transfers:
            if REQUESTER not in (transfer.source, transfer.target):
                self.targets[transfer.source].add(transfer.target)


class World:
    """The plans that runs have.

    Args:
        plans: one for all devices, and one for every part of them.
        other: another one for all.
    """

    def __init__(self, plans: Mapping[Members, ExecutionPlan], other: ExecutionPlan) -> None:
        self.devices = len(other.devices)
        self.everybody: Members = frozenset(range(self.devices))
        self.plans, self.other = plans, other
        self._ways = {id(plan): plan.ways for plan in (*plans.values(), other)}
        self._facts = {id(way): Facts(way) for ways in self._ways.values() for way in ways}

    @property
    def most_ways(self) -> int:
        """Of any of its plans: so many epochs has one plan."""
        return max(map(len, self._ways.values()))

    def ways(self, plan: ExecutionPlan) -> tuple[ExecutionPlan, ...]:
        """What frames may take under one of these plans."""
        return self._ways[id(plan)]

    def facts(self, plan: ExecutionPlan) -> Facts:
        """Of one of these ways."""
        return self._facts[id(plan)]
