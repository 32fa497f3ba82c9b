"""Interrupts whatever runs, on each core, 2,000 times a second. A script that imports nothing of ours.

`python -I -S pacemaker.py CORE ...` leaves a process of real-time priority on each core. When a CPU quota's
new period begins, the kernel lets the host's processes wait until its next look at who is to run: up to 4 ms,
and longer while a busy program's turn lasts. That is most of a period of 5 ms. Each waking makes it look.
"""

import ctypes
import os
import sys

INTERVAL_NS = 500_000
_CLOCK_MONOTONIC = 1


class Time(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


def main(cores):
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    nothing = os.open(os.devnull, os.O_RDWR)
    for core in cores:
        if not os.fork():
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            os.sched_setaffinity(0, {core})
            beat()


def beat():
    sleep, interval = ctypes.CDLL(None).clock_nanosleep, ctypes.byref(Time(0, INTERVAL_NS))
    while True:
        sleep(_CLOCK_MONOTONIC, 0, interval, None)


if __name__ == "__main__":
    try:
        main([int(word) for word in sys.argv[1:]])
    except OSError as error:
        print(f"pacemaker: {error}", file=sys.stderr)
        sys.exit(1)
