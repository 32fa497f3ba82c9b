"""A peer whose engine never returns, though its process lives and its interpreter is well."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest

from distredge.errors import WedgedError
from distredge.protocol.events import RunPart
from distredge.runtime import hosted, running
from distredge.runtime.hosted import HostedPlan
from distredge.runtime.peer import Peer, PeerSettings
from distredge.runtime.session import InferenceSession
from tests.models import chain
from tests.runtime.test_failures import hosts_file, peers_elsewhere
from tests.runtime.test_recovery import IMAGES


class Wedge:
    """A peer in this process whose parts, when told so, do not return."""

    def __init__(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.peer = Peer(PeerSettings("tcp://127.0.0.1:0", "peer1", 1, cache_dir=cache))
        self.is_on, self.over = threading.Event(), threading.Event()
        self.error: WedgedError | None = None
        run = HostedPlan.run

        def run_or_hang(plan: HostedPlan, frame: int, task: int) -> None:
            if self.is_on.is_set():
                self.over.wait()
                raise SystemExit  # of this thread; a process would have ended
            run(plan, frame, task)

        monkeypatch.setattr(HostedPlan, "run", run_or_hang)
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        try:
            self.peer.serve()
        except WedgedError as error:
            self.error = error
        finally:
            self.peer.close()

    def close(self) -> None:
        self.over.set()
        if self.thread.is_alive():
            self.peer.stop()
        self.thread.join()


@pytest.fixture
def wedge(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wedge]:
    monkeypatch.setattr(running, "WEDGED_S", 0.5)
    monkeypatch.setattr(running, "WEDGED_TIMES", 1.0)
    monkeypatch.setattr(hosted, "QUICK_S", 0.0)  # nothing is computed in the I/O thread
    made = Wedge(cache, monkeypatch)
    yield made
    made.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_it_ends_and_the_frames_go_on_elsewhere(cache: Path, tmp_path: Path, wedge: Wedge) -> None:
    with peers_elsewhere(1, cache) as (_, addresses):
        hosts = hosts_file(tmp_path / "hosts.ini", *addresses, wedge.peer.address.removeprefix("tcp://"))
        with InferenceSession(chain(), hosts=hosts, policy="equal", cache_dir=cache) as session:
            before = list(session.stream(IMAGES[:3]))
            wedge.is_on.set()
            after = list(session.stream(IMAGES[:3]))
            assert len(session.members) == 1
        for (found,), (expected,) in zip(after, before, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    wedge.thread.join()
    assert "peer1 has computed one part for" in str(wedge.error)


def test_a_process_that_was_stopped_is_not_wedged() -> None:
    """Time in which nobody could look counts little; time in which somebody did counts."""
    runner = running.FrameRunner("peer1", MagicMock(), {}, MagicMock(), 0)
    plan = MagicMock()
    plan.usual_s.return_value = 0.1
    runner._computing = (plan, RunPart(0, 0))
    now = 0.0
    for _ in range(10):
        now += 1e6
        runner.check_progress(now)

    def look_often() -> None:
        for at in range(40):
            runner.check_progress(now + 0.25 * at)

    with pytest.raises(WedgedError):
        look_often()
    runner.close()
