"""What a policy decides: where the depth is cut, and how each volume's rows are shared out."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from distredge.graph.rows import Rows


@dataclass(frozen=True, slots=True)
class PartitionScheme:
    """Where the depth is cut into layer-volumes.

    Attributes:
        cuts: names of tensors out of `Graph.cut_points`, in topological order. n cuts make n + 1
            volumes. The tail (`Graph.tail`) is in no volume: it runs behind the last one.
    """

    cuts: tuple[str, ...] = ()

    @property
    def volumes(self) -> int:
        """How many volumes the cuts make."""
        return len(self.cuts) + 1


@dataclass(frozen=True, slots=True)
class SplitDecision:
    """How one volume's rows are shared out.

    Attributes:
        bounds: `parts + 1` row numbers of the volume's reference tensor, from 0 to its rows, never
            falling; part i has rows `[bounds[i], bounds[i + 1])`. Other tensors are cut at the same
            fraction: see `scaled`. Part i is device i's, unless the strategy has lanes.
    """

    bounds: tuple[int, ...]

    @classmethod
    def from_shares(cls, rows: int, shares: list[float] | tuple[float, ...]) -> SplitDecision:
        """Bounds for shares of any positive sum, rounded so that they add up to `rows`."""
        total = sum(shares)
        bounds, seen = [0], 0.0
        for share in shares:
            seen += share
            bounds.append(round(rows * seen / total))
        return cls(tuple(bounds))

    @property
    def parts(self) -> int:
        """How many parts there are, those without rows included."""
        return len(self.bounds) - 1

    @property
    def rows(self) -> int:
        """Of the reference tensor."""
        return self.bounds[-1]

    def part(self, at: int) -> Rows:
        """The rows of the reference tensor that are in this part."""
        return Rows(self.bounds[at], self.bounds[at + 1])

    def scaled(self, rows: int, quantum: int = 1) -> SplitDecision:
        """The same decision on a tensor of another height.

        The one rounding rule: a bound b of R rows becomes the multiple of `quantum` nearest to
        b * rows / R, halves upwards; the last bound is always `rows`.
        """
        if rows == self.rows and quantum == 1:
            return self
        scaled = [(2 * b * rows + self.rows * quantum) // (2 * self.rows * quantum) for b in self.bounds]
        bounds = [min(rows, q * quantum) for q in scaled]
        return SplitDecision(
            tuple(rows if b == self.rows else new for b, new in zip(self.bounds, bounds, strict=True))
        )

    @property
    def is_valid(self) -> bool:
        """Whether the bounds rise from 0."""
        return len(self.bounds) > 1 and self.bounds[0] == 0 and all(a <= b for a, b in pairwise(self.bounds))


@dataclass(frozen=True, slots=True)
class Strategy:
    """The whole decision; `compile_plan` turns it into an ExecutionPlan.

    Attributes:
        scheme: where the depth is cut.
        splits: one decision per volume.
        tail_device: index of the device that runs the tail; None: the one with most rows in the last
            volume.
        lanes: device of each part, from the top, where devices compute their rows in several parts, one
            after the other, so that rows travel meanwhile: never falling, and each device at least once.
            Empty: part i is device i's. A lane without rows in a volume is not there in it. A plan joins a
            device's lanes in volumes with a reduction over rows (`Volume.reduces`).
        beside: other strategies for the same devices that whole frames of a stream may take instead: each
            frame goes to the one that will be done first. A frame alone takes this one. They have none
            beside themselves.
    """

    scheme: PartitionScheme
    splits: tuple[SplitDecision, ...]
    tail_device: int | None = None
    lanes: tuple[int, ...] = ()
    beside: tuple[Strategy, ...] = ()

    @property
    def devices(self) -> int:
        """How many devices it is for."""
        return self.lanes[-1] + 1 if self.lanes else self.splits[0].parts

    @property
    def part_devices(self) -> tuple[int, ...]:
        """The device of each part."""
        return self.lanes or tuple(range(self.devices))

    @property
    def has_lanes(self) -> bool:
        """Whether some device really has several parts of a volume."""
        return self.lanes != () and any(
            sum(1 for at, owner in enumerate(self.lanes) if owner == device and split.part(at)) > 1
            for split in self.splits
            for device in range(self.devices)
        )

    @property
    def merged(self) -> Strategy:
        """The same rows for each device, in one part."""
        if not self.lanes:
            return self
        ends = [bisect_right(self.lanes, device) for device in range(self.devices)]
        splits = tuple(SplitDecision((0, *(split.bounds[end] for end in ends))) for split in self.splits)
        return Strategy(self.scheme, splits, self.tail_device)

    def joined(self, volumes: Iterable[int]) -> Strategy:
        """The same rows for each device, in these volumes all in the lane that it runs last."""
        if not self.lanes:
            return self
        ends, splits = joined_ends(self.lanes), list(self.splits)
        for at in volumes:
            splits[at] = SplitDecision(tuple(splits[at].bounds[end] for end in ends))
        return replace(self, splits=tuple(splits))

    def with_lanes(self, lanes: Sequence[int]) -> Strategy:
        """The same rows for each device, all in its last lane to be run; other lanes have none.

        Args:
            lanes: as the attribute, for as many devices.
        """
        whole = {lanes[at]: at for at in run_order(lanes)}
        splits = []
        for split in self.merged.splits:
            ends = [split.bounds[d + (at >= whole[d])] for at, d in enumerate(lanes)]
            splits.append(SplitDecision((0, *ends)))
        return Strategy(self.scheme, tuple(splits), self.tail_device, tuple(lanes))

    @property
    def ways(self) -> tuple[Strategy, ...]:
        """What a frame may take: this one, with nothing beside it, and those beside it."""
        return (replace(self, beside=()) if self.beside else self, *self.beside)

    @classmethod
    def dealt(cls, ways: Sequence[Strategy]) -> Strategy:
        """The strategy whose `ways` these are, the first one for a frame alone."""
        return replace(ways[0], beside=tuple(ways[1:])) if len(ways) > 1 else ways[0]

    def embedded(self, members: Sequence[int], devices: int) -> Strategy:
        """The same decision among more devices, of which all but the members have no rows.

        Args:
            members: numbers among all devices, rising; one per device of this strategy.
            devices: how many there are in all.
        """
        tail = None if self.tail_device is None else members[self.tail_device]
        owners = [members[device] for device in self.part_devices]
        lanes = sorted([*owners, *set(range(devices)).difference(owners)])
        ends = list(accumulate(int(device in owners) for device in lanes))
        splits = tuple(SplitDecision((0, *(split.bounds[end] for end in ends))) for split in self.splits)
        beside = tuple(other.embedded(members, devices) for other in self.beside)
        return Strategy(self.scheme, splits, tail, tuple(lanes) if self.lanes else (), beside)


def are_lanes(lanes: Sequence[int], devices: int) -> bool:
    """Whether parts of these devices, from the top, are what `Strategy.lanes` may be."""
    return not lanes or (list(lanes) == sorted(lanes) and set(lanes) == set(range(devices)))


def joined_ends(lanes: Sequence[int]) -> tuple[int, ...]:
    """Per bound, which one stands in its place where each device has all its rows in the lane that it runs
    last."""
    last = {lanes[at]: at for at in run_order(lanes)}
    found = [
        bisect_left(lanes, device) if at <= last[device] else bisect_right(lanes, device)
        for at, device in enumerate(lanes)
    ]
    return (*found, len(lanes))


def run_order(owners: Sequence[int]) -> tuple[int, ...]:
    """The order in which parts run: device by device, the parts at a device's two borders first, since
    neighbours wait for their rows, and what lies between while these travel."""
    order: list[int] = []
    for device in sorted(set(owners)):
        mine = [at for at, owner in enumerate(owners) if owner == device]
        order.extend([mine[0], *mine[-1:0:-1][:1], *mine[1:-1]])
    return tuple(order)
