"""Delays what passes between a host and the access point. A script that imports nothing of ours.

`python -I -S relay.py AP_NAMESPACE HOST_NAMESPACE PORT DELAY_MS JITTER_MS` makes a TAP device named PORT in
one network namespace and one named `eth0` in the other, and leaves a child that carries each frame across
after the delay, give or take the jitter; frames keep their order. The devices vanish with the child.

Frames are as large as the kernel makes them (segmentation is left to it), which costs a fraction of what
single packets would.
"""

import collections
import contextlib
import ctypes
import fcntl
import os
import random
import select
import struct
import sys
import time

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_TAP, _NO_INFO, _WITH_HEADER = 0x0002, 0x1000, 0x4000
_CHECKSUM, _SEGMENTS4, _SEGMENTS6 = 1, 2, 4
_LARGEST_FRAME = 1 << 17
_PR_SET_TIMERSLACK = 29


def open_tap(libc, namespace, name):
    door = os.open(namespace, os.O_RDONLY)
    if libc.setns(door, 0):
        raise OSError(ctypes.get_errno(), f"{namespace}: {os.strerror(ctypes.get_errno())}")
    os.close(door)
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP | _NO_INFO | _WITH_HEADER))
    fcntl.ioctl(tap, _TUNSETOFFLOAD, _CHECKSUM | _SEGMENTS4 | _SEGMENTS6)
    return tap


class Direction:
    """Frames from one device on their way to the other."""

    def __init__(self, source, target, delay_s, jitter_s):
        self.source, self.target = source, target
        self.delay_s, self.jitter_s = delay_s, jitter_s
        self.waiting = collections.deque()
        self.last_due = 0.0
        self.random = random.Random(source)

    def receive(self):
        while True:
            try:
                frame = os.read(self.source, _LARGEST_FRAME)
            except BlockingIOError:
                return
            due = time.monotonic() + self.delay_s + self.random.uniform(-self.jitter_s, self.jitter_s)
            self.last_due = max(due, self.last_due)
            self.waiting.append((self.last_due, frame))

    def deliver(self):
        """Writes what is due; returns the seconds until the next is, or None."""
        while self.waiting:
            left = self.waiting[0][0] - time.monotonic()
            if left > 0:
                return left
            frame = self.waiting.popleft()[1]
            with contextlib.suppress(OSError):  # the device is down or its queue full: a lost frame
                os.write(self.target, frame)
        return None


def main(ap, host, port, delay_ms, jitter_ms):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0)
    outer, inner = open_tap(libc, ap, port), open_tap(libc, host, "eth0")
    delay_s, jitter_s = float(delay_ms) / 1e3, float(jitter_ms) / 1e3
    directions = [Direction(a, b, delay_s, jitter_s) for a, b in ((outer, inner), (inner, outer))]
    if os.fork():
        return
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    while True:
        times = [left for direction in directions if (left := direction.deliver()) is not None]
        readable, _, _ = select.select([outer, inner], [], [], min(times, default=None))
        for direction in directions:
            if direction.source in readable:
                direction.receive()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        print(f"relay: {error}", file=sys.stderr)
        sys.exit(1)
