"""A plan that changes while frames run; what peers tell of it; live sources; several requesters."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from distredge.errors import InputError
from distredge.graph.importer import load_model
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.runtime.fair import FairQueue
from distredge.runtime.session import InferenceSession
from distredge.runtime.tally import Review
from tests.models import chain
from tests.runtime.test_failures import hosts_file, peers_elsewhere
from tests.runtime.test_recovery import IMAGES, Checked, is_settled


@pytest.fixture(scope="module")
def answers(cache: Path) -> list[list[np.ndarray]]:
    with InferenceSession(chain(), local_peers=2, policy="equal", cache_dir=cache) as session:
        return list(session.stream(IMAGES))


def test_a_reviewer_sees_what_the_plan_takes_and_changes_it(cache: Path, answers: list) -> None:
    model = load_model(chain(), cache_dir=cache)
    scheme = PartitionScheme((model.graph.cut_points[1],))
    volumes = find_volumes(model.graph, scheme)
    other = Strategy(scheme, tuple(SplitDecision.from_shares(v.rows, [0.75, 0.25]) for v in volumes))
    reviews: list[Review] = []

    def reviewer(review: Review) -> Strategy:
        reviews.append(review)
        return other

    with InferenceSession(model, local_peers=2, policy="equal", cache_dir=cache) as session:
        session.adapt(reviewer)
        before = session.plan
        stream = Checked(session, answers)
        stream.take_until(lambda: session.plan.strategy == other)
        stream.take_until(lambda: len(reviews) > 3 and is_settled(session))
        assert session.plan.strategy == other  # it was proposed again, and is in use already
        assert len(session._client.plans) == 3  # it, and one for each loss: the first plan is gone
        assert stream.longest_s < 1
        first = next(review for review in reviews if review.runs)
        assert first.plan == before
        assert set(first.runs) <= {task.id for task in before.tasks}
        assert all(times > 0 and seconds > 0 for times, seconds in first.runs.values())
        assert {before.transfers[number].target for number in first.transit_s} == {-1, 0, 1}
        assert all(abs(seconds) < 5 for seconds in first.transit_s.values())


class Camera:
    """An image every so often, in one buffer; its images are numbered in their first pixel."""

    def __init__(self, images: int, every_s: float) -> None:
        self.images, self.every_s, self.shown = images, every_s, 0
        self._pause = threading.Event()

    def __iter__(self) -> Iterator[np.ndarray]:
        buffer = np.zeros_like(IMAGES[0])
        for at in range(self.images):
            buffer[:] = IMAGES[at % 7]
            self.shown += 1
            yield buffer
            self._pause.wait(self.every_s)


def test_a_live_source_drops_what_there_is_no_room_for(cache: Path, answers: list) -> None:
    with InferenceSession(chain(), local_peers=2, policy="equal", cache_dir=cache) as session:
        camera = Camera(200, 0.001)
        seen = 0
        for (found,) in session.stream(camera, in_flight=1, drop="oldest"):
            assert any(np.array_equal(found, each[0]) for each in answers)
            seen += 1
            threading.Event().wait(0.01)  # a slow user: the camera is not held up
        assert camera.shown == 200
        assert seen + session.dropped == 200
        assert session.dropped > 50
        slow = Camera(5, 0.05)
        assert len(list(session.stream(slow, in_flight=2, drop="oldest"))) == 5
        assert seen + session.dropped == 200

        def broken() -> Iterator[np.ndarray]:
            yield IMAGES[0]
            raise RuntimeError("the lens cap is on")

        with pytest.raises(RuntimeError, match="lens cap"):
            list(session.stream(broken(), drop="oldest"))
        with pytest.raises(InputError, match="drop is 'newest'"):
            session.stream(broken(), drop="newest")


def test_two_requesters_are_served_alike(cache: Path, answers: list, tmp_path: Path) -> None:
    """One keeps eight frames under way, the other two: parts come in turn all the same."""
    with peers_elsewhere(2, cache) as (_, addresses):
        hosts = hosts_file(tmp_path / "hosts.ini", *addresses)
        with (
            InferenceSession(chain(), hosts=hosts, policy="equal", cache_dir=cache) as greedy,
            InferenceSession(chain(), hosts=hosts, policy="equal", cache_dir=cache) as modest,
        ):
            streams = [Checked(greedy, answers, 8), Checked(modest, answers, 2)]
            end = time.monotonic() + 2
            threads = [threading.Thread(target=_stream, args=(each, end)) for each in streams]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            frames = [each.seen for each in streams]
            assert min(frames) > 0.2 * max(frames), frames


def _stream(stream: Checked, end: float) -> None:
    while time.monotonic() < end:
        stream.take(1)


def test_shares_of_a_workers_time_are_equal() -> None:
    now = 0.0
    jobs: FairQueue[tuple[int, float]] = FairQueue(lambda job: job[0], lambda job: 0, lambda: now)
    used = {1: 0.0, 2: 0.0}
    for _ in range(200):
        jobs.put((1, 3.0))
        jobs.put((2, 1.0))
    for _ in range(150):
        job = jobs.get()
        assert job is not None
        used[job[0]] += job[1]
        now += job[1]
    assert abs(used[1] - used[2]) <= 3
    # Who comes back after a long rest has no claim to what he did not use.
    late: FairQueue[tuple[int, float]] = FairQueue(lambda job: job[0], lambda job: 0, lambda: now)
    order = []
    for at in count():
        late.put((1, 1.0))
        if at >= 50:
            late.put((2, 1.0))
        if at == 60:
            break
        job = late.get()
        assert job is not None
        order.append(job[0])
        now += 1.0
    assert set(order[:50]) == {1}
    assert order[50:].count(2) in (4, 5, 6)
    late.put(None)
    while late.get() is not None:
        pass


def test_of_one_owners_jobs_the_lowest_rank_comes_first() -> None:
    """So frames under a new plan hold up none that began before, under the old one."""
    jobs: FairQueue[tuple[int, str]] = FairQueue(lambda job: 0, lambda job: job[0])
    for job in ((7, "new"), (5, "old"), (7, "later"), (6, "old")):
        jobs.put(job)
    assert [jobs.get() for _ in range(4)] == [(5, "old"), (6, "old"), (7, "new"), (7, "later")]
