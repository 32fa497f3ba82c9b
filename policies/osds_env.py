"""The decision process of OSDS, many episodes side by side: one step cuts the rows of one layer-volume.

The environments step together, and those of one partition scheme are priced in one call of the evaluator, so
that a step costs microseconds. The class has what Tianshou's Collector asks of a vector environment, and no
learning: neither torch nor Tianshou is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from policies.osds_task import Floats, Ints, SplitTask, costs_s
from policies.parts import pricer_for

Form = Callable[["SplitEnv", Ints, SplitTask], Floats]

REACH = 0.35
"""By how much of the height an action of 1 moves a cut from the incumbent's, in the improved form [O]."""
LEAST = 0.1
"""Part of a row from which on an action moves a cut by a whole one [O]."""
DECLINING = 2
"""One environment in so many takes back a decision that costs too much, so that what it meets then lies near
the incumbent. The others go on with it: moves of several volumes may pay only once all have moved [O]."""
GAIN = 10.0
"""Reward for a decision that takes off the whole of the first incumbent's latency [O]."""


class SplitEnv:
    """`count` episodes at once, each of one task.

    Attributes:
        active: tasks that the next episodes are of, drawn with equal chances.
        paper: the paper's form: whole decisions, the reward at the end.
        moving: whether a better strategy becomes its task's incumbent at once (improved form).
        pinned: whether environment i always has task i.
        temperature: how much worse a new incumbent may be, on average, over the best latency (Metropolis).
        met: episodes finished.
    """

    is_async = False

    def __init__(
        self,
        tasks: Sequence[SplitTask],
        count: int,
        seed: int,
        *,
        paper: bool,
        moving: bool = True,
        pinned: bool = False,
    ) -> None:
        self.tasks = list(tasks)
        self.active = list(range(len(tasks)))
        self.paper = paper
        self.moving = moving
        self.pinned = pinned
        self.temperature = 0.0
        self.met = 0
        self.devices = tasks[0].bounds.shape[1] - 1
        self._rng = np.random.default_rng(seed)
        self._deepest = max(task.volumes for task in tasks)
        self._known = [_about(task) for task in tasks]
        self._task = np.zeros(count, dtype=np.int64)
        self._volume = np.zeros(count, dtype=np.int64)
        self._bounds = np.zeros((count, self._deepest, self.devices + 1), dtype=np.int64)
        self._ready = np.zeros((count, self._deepest, self.devices))
        self._cost = np.zeros(count)
        self.action_space = Box(-1.0, 1.0, (self.devices - 1,), np.float32)
        self.observation_space = Box(-np.inf, np.inf, (self.state_size(self.devices, paper),), np.float32)

    @staticmethod
    def state_size(devices: int, paper: bool) -> int:
        """Numbers in a state."""
        return devices + 4 if paper else 3 * devices + 2 * (devices - 1) + 6

    # ------------------------------------------------------------ what Tianshou's Collector calls

    def __len__(self) -> int:
        return len(self._task)

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Taken as Gymnasium's interface wants it; the generator is given at the beginning."""
        return [seed] * len(self)

    def close(self) -> None:
        """There is nothing to give back."""

    def reset(
        self, env_id: NDArray[np.int64] | list[int] | None = None, **_: object
    ) -> tuple[NDArray[np.float32], NDArray[np.object_]]:
        """Begins episodes anew; returns their first states."""
        ids = self._ids(env_id)
        self._task[ids] = ids % len(self.tasks) if self.pinned else self._rng.choice(self.active, len(ids))
        self._volume[ids] = 0
        for task, members in self._groups(ids):
            self._bounds[members, : task.volumes] = task.bounds
            self._cost[members] = min(task.cost_s, 3 * task.unit_s)
        return self._states(ids), _no_info(len(ids))

    def step(
        self,
        action: NDArray[np.float32],
        id: NDArray[np.int64] | list[int] | None = None,  # noqa: A002
    ) -> tuple[NDArray[np.float32], Floats, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.object_]]:
        """Takes one volume's decision in each episode; prices all of them in one call."""
        ids = self._ids(id)
        actions = np.zeros((len(self), self.devices - 1))
        actions[ids] = action
        rewards = np.zeros(len(self))
        done = np.zeros(len(self), dtype=bool)
        for task, members in self._groups(ids):
            at = self._volume[members]
            self._decide(task, members, at, actions[members])
            latencies, ready = task.price(self._bounds[members, : task.volumes])
            done[members] = at + 1 == task.volumes
            if self.paper:
                self._ready[members, : task.volumes] = ready
                # Reward 0 until the last volume, then 1/T [R]; 0 for what does not fit into memory [O].
                rewards[members] = np.where(done[members], 1.0 / latencies, 0.0)
                ended = done[members]
                if ended.any():
                    whole = latencies[ended]
                    task.offer(self._bounds[members[ended], : task.volumes], whole, whole)
            else:
                # What this decision adds to the cost, all later volumes cut as the incumbent's are [O].
                costs = costs_s(latencies, ready)
                worst = np.minimum(costs, 3 * task.unit_s)
                rewards[members] = GAIN * (self._cost[members] - worst) / task.unit_s
                worse = self.temperature * task.latency_s * self._rng.exponential()
                kept = (members % DECLINING != 0) | (worst <= self._cost[members] + worse)
                self._ready[members[kept], : task.volumes] = ready[kept]
                self._cost[members] = np.where(kept, worst, self._cost[members])
                if self.moving:
                    task.offer(self._bounds[members, : task.volumes], latencies, costs, worse)
                declined = ~kept
                self._bounds[members[declined], at[declined]] = task.bounds[at[declined]]
        self._volume[ids] += 1
        self.met += int(done.sum())
        states = self._states(ids)
        return states, rewards[ids], done[ids], np.zeros(len(ids), dtype=bool), _no_info(len(ids))

    def keep_best(self, count: int) -> None:
        """New episodes are of so many tasks, those of the best incumbents; never more than before."""
        if count < len(self.active):
            self.active = sorted(self.active, key=lambda at: self.tasks[at].latency_s)[:count]

    # ------------------------------------------------------------

    def _ids(self, ids: NDArray[np.int64] | list[int] | None) -> Ints:
        return np.arange(len(self)) if ids is None else np.atleast_1d(np.asarray(ids, dtype=np.int64))

    def _groups(self, ids: Ints) -> Iterator[tuple[SplitTask, Ints]]:
        of = self._task[ids]
        for number in np.unique(of):
            yield self.tasks[number], ids[of == number]

    def _decide(self, task: SplitTask, members: Ints, at: Ints, actions: Floats) -> None:
        """Writes the cuts of volumes `at`; the paper's form cuts all later volumes alike, to price what is
        decided so far."""
        heights = task.rows[at][:, None]
        if self.paper:
            fractions = np.sort((actions + 1) / 2, axis=1)
            for later in range(task.volumes):
                due = at <= later
                cuts = np.round(_ends(fractions[due], task.in_head[later]) * task.rows[later]).astype(
                    np.int64
                )
                self._bounds[members[due], later, 0] = 0
                self._bounds[members[due], later, 1:-1] = cuts
                self._bounds[members[due], later, -1] = task.rows[later]
            return
        rows = REACH * actions * heights
        away = np.sign(rows) * np.ceil(np.abs(rows) - LEAST)  # rounded to no move, most actions would be idle
        moved = task.bounds[at, 1:-1] + away.astype(np.int64)
        self._bounds[members, at, 1:-1] = np.sort(np.clip(moved, 0, heights), axis=1)

    def _states(self, ids: Ints) -> NDArray[np.float32]:
        states = np.zeros((len(ids), self.observation_space.shape[0]), dtype=np.float32)
        order = {int(member): row for row, member in enumerate(ids)}
        d = self.devices
        for task, members in self._groups(ids):
            rows = [order[int(member)] for member in members]
            at = self._volume[members]
            over = at >= task.volumes
            here, before = np.minimum(at, task.volumes - 1), np.maximum(at - 1, 0)
            ready = np.where(at[:, None] > 0, self._ready[members, before], 0.0) / task.unit_s
            states[rows, :d] = ready
            states[rows, d : d + 4] = np.where(over[:, None], 0.0, task.features[here])
            if self.paper:
                continue
            fraction = task.bounds[here, 1:-1] / task.rows[here][:, None]
            decided = self._bounds[members, before, 1:-1] / task.rows[before][:, None]
            states[rows, d + 4] = at / task.volumes
            states[rows, d + 5] = self._cost[members] / task.unit_s - 1.0
            states[rows, d + 6 : 2 * d + 5] = fraction
            states[rows, 2 * d + 5 : 3 * d + 4] = np.where(at[:, None] > 0, decided, 0.0)
            states[rows, 3 * d + 4 :] = self._known[self.tasks.index(task)]
        return states


def _about(task: SplitTask) -> Floats:
    """What a state says of the problem: speeds and rates of the devices' links, over the largest of each."""
    speeds = pricer_for(task.problem).speeds()
    links = task.problem.network.links
    rates = np.array([min(link.uplink_mbps, link.downlink_mbps, 1e5) for link in links])
    return np.concatenate([speeds / speeds.max(), rates / rates.max()])


def _ends(fractions: Floats, whole: bool) -> Floats:
    """Where parts end but the last; of a whole, at either end: the largest part takes it."""
    if not whole:
        return fractions
    sizes = np.diff(fractions, axis=1, prepend=0.0, append=1.0)
    owner = sizes.argmax(axis=1)[:, None]
    return (np.arange(fractions.shape[1])[None] >= owner).astype(np.float64)


def _no_info(count: int) -> NDArray[np.object_]:
    return np.array([{} for _ in range(count)], dtype=object)
