"""Several threads that use one session."""

from __future__ import annotations

import select
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from distredge.errors import DistrEdgeError, InputError
from distredge.runtime.session import InferenceSession
from distredge.runtime.turns import Bell, Turns
from tests.models import branches
from tests.runtime.support import agree, image, whole

LONG_S = 20.0
THREADS = 6


def test_whoever_listens_makes_way_for_those_who_work() -> None:
    """Nothing comes for the one who listens, and would for long; each of the others gets in at once."""
    bell, over = Bell(), threading.Event()
    turns = Turns(bell.ring)
    listened = []

    def listen() -> None:
        listened.append(select.select([bell.socket], [], [], LONG_S)[0] != [])
        bell.answer()

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(turns.wait, over.is_set, listen)
        for _ in range(50):
            with turns.alone():
                pass
        with turns.alone():
            over.set()
        waiting.result(LONG_S / 2)
    assert all(listened)
    bell.close()


def test_when_the_one_who_listens_is_done_another_one_listens() -> None:
    came, done = threading.Semaphore(0), [threading.Event() for _ in range(THREADS)]
    turns = Turns(lambda: None)
    left = list(done)

    def listen() -> None:
        if came.acquire(timeout=LONG_S):
            left.pop().set()  # of the last first: what one waits for may come by another one's turn

    with ThreadPoolExecutor(THREADS) as pool:
        waiting = [pool.submit(turns.wait, each.is_set, listen) for each in done]
        for _ in done:
            came.release()
        for each in waiting:
            each.result(LONG_S)


def test_a_failure_is_that_of_whoever_listens_and_others_go_on() -> None:
    turns, over, first = Turns(lambda: None), threading.Event(), threading.Event()

    def fail() -> None:
        first.wait(LONG_S)
        raise DistrEdgeError("over")

    with ThreadPoolExecutor() as pool:
        failing = pool.submit(turns.wait, over.is_set, fail)
        other = pool.submit(turns.wait, over.is_set, over.set)
        first.set()
        with pytest.raises(DistrEdgeError, match="over"):
            failing.result(LONG_S)
        other.result(LONG_S)


def test_frames_of_several_threads_are_under_way_together(session: InferenceSession) -> None:
    images = [image() for _ in range(8 * THREADS)]
    session.run(None, {"x0": images[0]})
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda each: session.run(None, {"x0": each}), images))
    for each, answer in zip(images, answers, strict=True):
        agree(answer, whole(branches(), {"x0": each}))
    times = sorted(session.frame_times[-len(images) :], key=lambda each: each.submitted_s)
    overlapping = sum(b.submitted_s < a.delivered_s for a, b in pairwise(times))
    assert overlapping > 0


def test_streams_and_single_frames_of_several_threads(session: InferenceSession) -> None:
    images = [image() for _ in range(12)]
    expected = [whole(branches(), {"x0": each}) for each in images]
    with ThreadPoolExecutor() as pool:
        streams = [pool.submit(lambda: list(session.stream(images, in_flight=3))) for _ in range(2)]
        with pytest.raises(InputError):
            session.run(None, {"x0": images[0].astype(np.float64)[0]})
        for each, answer in zip(images, expected, strict=True):
            agree(session.run(None, {"x0": each}), answer)
        for stream in streams:
            for answer, wanted in zip(stream.result(LONG_S), expected, strict=True):
                agree(answer, wanted)


def test_a_stream_may_end_in_a_thread_that_is_using_the_client(session: InferenceSession) -> None:
    """As the garbage collector may have it."""
    stream = session.stream([image()] * 8, in_flight=4)
    next(stream)
    with session._resources.working() as client:
        kept = len(client.lines.frames.open) + len(client.lines.frames.finished)
        stream.close()
    session.run(None, {"x0": image()})
    assert kept == 3
    assert not client.lines.frames.open
    assert not client.lines.frames.finished


def test_threads_that_wait_hear_that_the_session_is_closed(cache: Path) -> None:
    session = InferenceSession(branches(), local_peers=2, cache_dir=cache)
    started = threading.Barrier(THREADS + 1)

    def work() -> None:
        started.wait(LONG_S)
        while True:
            session.run(None, {"x0": image()})

    with ThreadPoolExecutor(THREADS) as pool:
        working = [pool.submit(work) for _ in range(THREADS)]
        started.wait(LONG_S)
        session.close()
        for each in working:
            with pytest.raises(DistrEdgeError, match="closed"):
                each.result(LONG_S)
