"""Whole frames dealt out to real peers: right, in order, once, also when one dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from distredge.runtime.session import InferenceSession
from tests.models import chain
from tests.runtime.conftest import wait_until
from tests.runtime.test_recovery import IMAGES, Checked, answers, is_settled, pids  # noqa: F401


def test_frames_go_to_every_peer_and_back_in_order(cache: Path, answers: list) -> None:  # noqa: F811
    with InferenceSession(chain(), local_peers=2, objective="throughput", cache_dir=cache) as session:
        assert len(session.plan.ways) == 2
        Checked(session, answers).take(60)
        session.trace()
        runs: set[str] = set()

        def all_have_run() -> bool:
            # a way that was held up rests for many frames as small as these
            found = list(session.stream((IMAGES[at % 7] for at in range(40)), 4, ordered=False))
            assert len(found) == 40
            runs.update(activity.peer for activity in session.trace() if activity.what == "run")
            return runs == {"peer0", "peer1"}

        wait_until(all_have_run)
        single, dealt = session.plan.ways[0], session.plan.strategy
        session.use(single)
        Checked(session, answers).take(10)
        session.use(dealt)
        Checked(session, answers).take(10)
        assert session.plan.strategy == dealt


def test_frames_of_a_lost_peer_are_dealt_again(cache: Path, answers: list) -> None:  # noqa: F811
    with InferenceSession(chain(), local_peers=3, objective="throughput", cache_dir=cache) as session:
        stream = Checked(session, answers, in_flight=6)
        stream.take_until(lambda: is_settled(session))
        os.kill(pids(session)[0], signal.SIGKILL)
        stream.take_until(lambda: session.members == ("peer1", "peer2"))
        stream.take_until(lambda: len(session.members) == 3 and is_settled(session))
        assert {task.device for way in session.plan.ways for task in way.tasks} == {0, 1, 2}
        stream.take(30)


def test_one_frame_at_a_time_is_right(cache: Path, answers: list) -> None:  # noqa: F811
    settings: dict[str, Any] = {"policy": "replicate", "objective": "throughput", "cache_dir": cache}
    with InferenceSession(chain(), local_peers=2, **settings) as session:
        for at in range(20):
            (found,) = session.run(None, {session.get_inputs()[0].name: IMAGES[at % 7]})
            assert np.array_equal(found, answers[at % 7][0])
