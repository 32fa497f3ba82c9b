"""A whole session under faults, on a virtual clock: the real state machines, invariants after every event.

Everything follows from the seed: what goes wrong, when, how long each message and part takes. Connections
keep the order of what the requester says; rows may overtake anything and come twice.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, NoReturn

from distredge.errors import DistrEdgeError
from distredge.sim.fault_network import FaultyNetwork
from distredge.sim.fault_peer import FaultyPeer
from distredge.sim.fault_requester import FaultyRequester
from distredge.sim.fault_script import draw_faults
from distredge.sim.fault_strikes import Striker
from distredge.sim.fault_world import Parts, World

STANDSTILL_S = 30.0
"""Without an answer or a fault for so long, nothing will come any more."""
QUIET_S = 20.0
"""After the last answer: time to be in order again."""


class Violation(DistrEdgeError):
    """An invariant does not hold; `seed` finds it again, `log` tells what happened."""

    seed: int
    log: list[str]


class FaultRun:
    """One seeded run.

    Args:
        world: the plans.
        seed: of everything.
        frames: how many.
        in_flight: open at a time.
        parts: the state machines.
    """

    def __init__(
        self, world: World, seed: int, *, frames: int = 14, in_flight: int = 3, parts: Parts | None = None
    ) -> None:
        self.world, self.seed, self.parts = world, seed, parts or Parts()
        self.rng = random.Random(seed)
        self.now = 0.0
        self.log: list[str] = []
        self._frames = frames
        self._epoch_limit = world.most_ways * (2 * world.devices + 6)
        self._frame_limit = self._epoch_limit + 2 * in_flight
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._events = 0
        self._disturbed_s = 0.0
        self._faults = draw_faults(self.rng, world.devices)
        self._striker = Striker(self)
        self.network = FaultyNetwork(self)
        self.requester = FaultyRequester(self, frames, in_flight)
        self.peers = [FaultyPeer(self, device) for device in range(world.devices)]
        for peer in self.peers:
            peer.join(self.network.identity[peer.device])
        self.requester.use(world.plans[world.everybody], world.everybody)

    # ------------------------------------------------------------------ the clock

    def later(self, seconds: float, what: Callable[..., None], *arguments: Any) -> None:
        """Something happens so many seconds from now."""
        self.at(self.now + seconds, what, *arguments)

    def at(self, time_s: float, what: Callable[..., None], *arguments: Any) -> None:
        """Something happens then; what was asked for earlier comes first."""
        self._order += 1
        heappush(self._heap, (time_s, self._order, what, arguments))

    def draw(self, mean_s: float) -> float:
        """A duration: mostly about the mean, now and then many times that."""
        return mean_s * (0.5 + self.rng.random()) * (10 if self.rng.random() < 0.02 else 1)

    def disturbed(self, until_s: float) -> None:
        """Things may have stood still until then for a good reason."""
        self._disturbed_s = max(self._disturbed_s, until_s)

    def note(self, text: str) -> None:
        """A line for whoever must understand the run."""
        self.log.append(f"{self.now:9.4f}  {text}")

    def violation(self, text: str) -> NoReturn:
        """An invariant does not hold."""
        self.note(text)
        raise Violation(f"seed {self.seed}: {text}", seed=self.seed, log=self.log)

    def run(self) -> FaultRun:
        """Until every frame is answered and all is in order again.

        Raises:
            Violation: an invariant does not hold.
        """
        requester, done_s = self.requester, float("inf")
        requester.submit()
        while self._heap:
            self.now, _, what, arguments = heappop(self._heap)
            while requester.has_begun and self._faults and self._faults[0].after <= self._events:
                self._striker.strike(self._faults.pop(0))
            what(*arguments)
            self._events += requester.has_begun  # a session that cannot begin is an error, not a fault
            if requester.is_done:
                self._faults.clear()  # those that would have come too late
                done_s = min(done_s, self.now)
                if self.now > max(done_s, self._disturbed_s) + QUIET_S:
                    break
            elif self.now - self._disturbed_s > STANDSTILL_S:
                self.violation("there is no progress")
        self._check_end()
        return self

    # ------------------------------------------------------------------ invariants

    def check_kept(self, who: str, epochs: int, frames: int) -> None:
        """To be called whenever somebody keeps more than before."""
        if epochs > self._epoch_limit:
            self.violation(f"{who} keeps {epochs} epochs")
        if frames > self._frame_limit:
            self.violation(f"{who} keeps rows of {frames} frames")

    def _check_end(self) -> None:
        state = self.requester.state
        if not self.requester.is_done:
            self.violation("nothing happens any more, and frames are open")
        if self.requester.over != list(range(self._frames)):
            self.violation("not every frame was answered")
        if state.frames or self.requester.received:
            self.violation("the requester keeps frames that are over")
        alive = frozenset(peer.device for peer in self.peers if peer.is_alive)
        if state.members != alive:
            self.violation(f"members are {set(state.members)}, alive {set(alive)}")
        if not state.is_settled:
            self.violation("plans are not settled")
        for peer in self.peers:
            extra = set(peer.book.plans) - set(state.epochs)
            if extra:
                self.violation(f"device {peer.device} keeps epochs {extra} that are over")
            if peer.frames:
                self.violation(f"device {peer.device} keeps rows of {peer.frames} frames that are over")
