"""Faults strike: what each kind does to peers and connections, and who notices it when."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from distredge.plan.execution import REQUESTER
from distredge.sim.fault_script import Fault

if TYPE_CHECKING:
    from distredge.sim.faults import FaultRun

SILENCE_S = 1.0
"""As in `distredge.runtime.membership`: so long nothing comes before a connection counts as lost."""
CLOSED_S = 0.05
"""When an end of a connection says that it is gone."""


class Striker:
    """Brings faults about.

    Args:
        run: the world.
    """

    def __init__(self, run: FaultRun) -> None:
        self._run = run

    def strike(self, fault: Fault) -> None:
        """Now."""
        self._run.note(f"fault: {fault}")
        if fault.seconds != inf:
            self._run.disturbed(self._run.now + fault.seconds)
        getattr(self, f"_{fault.kind}")(fault)

    def _crash(self, fault: Fault) -> None:
        peer = self._run.peers[fault.device]
        if not peer.is_alive:
            return
        peer.end()
        self._all_notice(fault.device, SILENCE_S if fault.quiet else CLOSED_S)
        if fault.seconds != inf:
            self._run.later(fault.seconds, self._restart, fault.device)

    def _restart(self, device: int) -> None:
        self._run.note(f"device {device} starts again")
        self._run.peers[device].is_alive = True

    def _hang(self, fault: Fault) -> None:
        peer = self._run.peers[fault.device]
        peer.hung_until = max(peer.hung_until, self._run.now + fault.seconds)
        if fault.seconds > SILENCE_S:
            self._all_notice(fault.device, SILENCE_S)

    def _cut(self, fault: Fault) -> None:
        self._run.network.cut(fault.device, fault.other, fault.seconds)
        if fault.seconds <= SILENCE_S and fault.quiet:
            return  # too short to be noticed: what was on its way comes later
        after_s = SILENCE_S if fault.quiet else 0.01
        if fault.other == REQUESTER:
            self._requester_notices(fault.device, after_s)
        else:
            self._neighbour_notices(fault.device, fault.other, after_s)
            self._neighbour_notices(fault.other, fault.device, after_s)

    def _slow(self, fault: Fault) -> None:
        self._run.network.slow(fault.device, fault.other, fault.seconds)

    def _switch(self, fault: Fault) -> None:
        world, requester = self._run.world, self._run.requester
        if requester.state.members == world.everybody:
            requester.use(world.other, world.everybody)

    def _drop(self, fault: Fault) -> None:
        self._run.requester.drop(fault.after)

    # ------------------------------------------------------------------ who notices

    def _all_notice(self, device: int, after_s: float) -> None:
        """The requester and the neighbours find out that a peer is gone."""
        self._requester_notices(device, after_s)
        for other in range(self._run.world.devices):
            if other != device:
                self._neighbour_notices(other, device, after_s)

    def _requester_notices(self, device: int, after_s: float) -> None:
        run = self._run
        run.later(run.draw(after_s), run.requester.notices, device, run.network.identity[device])

    def _neighbour_notices(self, device: int, other: int, after_s: float) -> None:
        self._run.later(self._run.draw(after_s), self._lose_neighbour, device, other)

    def _lose_neighbour(self, device: int, other: int) -> None:
        self._run.network.lose(device, other)
        peer = self._run.peers[device]
        if peer.is_alive:
            peer.lose_neighbour(other)
