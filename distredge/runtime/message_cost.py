"""What a message costs a peer of this machine at either end, whatever its size: sockets, threads, headers."""

from __future__ import annotations

import time

import numpy as np

from distredge.cluster.machine import cpu_quota
from distredge.graph import zoo
from distredge.runtime.session import InferenceSession

FRAMES, WARM_UP = 600, 50
ENDS = 4
"""A frame of one peer is two messages, each with two ends."""


def measure_message_s() -> float:
    """Seconds of one end of a message: frames of hardly any work, through a peer process and back.

    In processor time, so that other programs do not count; over the CPU quota, if there is one.

    Raises:
        PeerError: the peer fails.
    """
    entry = zoo.get("tiny")
    with InferenceSession(entry.build().SerializeToString(), local_peers=1, policy="equal") as session:
        feed = {entry.input: np.zeros(entry.shape, np.float32)}
        (peer,) = session.local_pids

        def spent_s() -> float:
            return time.process_time() + time.clock_gettime(_clock_of(peer))

        for _ in range(WARM_UP):
            session.run(None, feed)
        session.trace()
        before = spent_s()
        for _ in range(FRAMES):
            session.run(None, feed)
        busy_s = spent_s() - before
        computed_s = sum(each.end_s - each.start_s for each in session.trace() if each.what == "run")
    return max(0.0, busy_s - computed_s) / FRAMES / ENDS / min(1.0, cpu_quota() or 1.0)


def _clock_of(process: int) -> int:
    """Linux's clock of a process's processor time, as clock_getcpuclockid has it."""
    return ~process << 3 | 2
