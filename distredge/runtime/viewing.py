"""What a requester tells a live view: counts of its client, a few times a second."""

from __future__ import annotations

import time

from distredge.runtime.client import Client
from distredge.view.watch import Counts, DeviceCount, Watch

EVERY_S = 0.25


class Observer:
    """Told by a client whenever it looks around; keeps a watch up to date.

    Holds no session, so that a session can be forgotten.

    Args:
        watch: what the counts are for.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._next_s = 0.0

    def __call__(self, client: Client, now: float) -> None:
        """Takes the counts, if it is time."""
        if now >= self._next_s:
            self._next_s = now + EVERY_S
            self._watch.take(_counts(client, now))


def _counts(client: Client, now: float) -> Counts:
    lines = client.lines
    deployment = None if lines.latest is None else lines.current(lines.latest)
    return Counts(
        now,
        time.time(),
        [
            DeviceCount(member.name, member.address, member.is_up, member.reason, member.up_s, busy_s)
            for member, busy_s in zip(client.peers, client.busy_s, strict=True)
        ],
        None if deployment is None else deployment.epoch,
        None if deployment is None else deployment.plan,
        {} if deployment is None else deployment.measured.transit_s,
        ((times.delivered_s, times.latency_s) for times in reversed(client.times)),
        len(lines.frames.open),
    )
