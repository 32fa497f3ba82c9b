"""Local peers of unequal speed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from distredge.runtime import cpu_quota, launcher
from distredge.runtime.compute import DutyCycle, WorkThread
from distredge.runtime.cpu_quota import CpuQuota, own_group, remove_stale
from distredge.runtime.launcher import LocalPeers
from tests.runtime.conftest import wait_until


def test_a_quota_is_set_or_refused_without_a_trace() -> None:
    try:
        group, unified = own_group()
        before = set(group.iterdir())
        quota = CpuQuota(0.1, 5)
    except OSError:
        return  # no control groups here, or no right to make one: the peers will rest instead
    made = group / f"distredge-{os.getpid()}-5"
    if unified:
        assert (made / "cpu.max").read_text().split() == ["1000", "10000"]
    else:
        assert (made / "cpu.cfs_quota_us").read_text() == "1000\n"
        assert (made / "cpu.cfs_period_us").read_text() == "10000\n"
    quota.close()
    assert set(group.iterdir()) == before


@pytest.mark.parametrize("unified", [True, False])
def test_what_is_written(unified: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_quota, "own_group", lambda: (tmp_path, unified))
    CpuQuota(0.6, 1)
    made = tmp_path / f"distredge-{os.getpid()}-1"
    names = ["cpu.max"] if unified else ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
    assert " ".join((made / name).read_text() for name in names) == "3000 5000"
    with pytest.raises(FileExistsError):
        CpuQuota(0.6, 1)


def test_groups_of_processes_that_are_gone_are_removed(tmp_path: Path) -> None:
    for name in ("distredge-99999999-0", f"distredge-{os.getpid()}-0", "distredge-x-0", "other"):
        (tmp_path / name).mkdir()
    remove_stale(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_where_no_quota_can_be_set_peers_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(share: float, number: int) -> CpuQuota:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(launcher, "CpuQuota", refuse)
    with LocalPeers(2, cpu_shares=[1.0, 0.25]) as peers:
        assert peers.limited_by == "duty cycle"
        commands = [" ".join(process.popen.args) for process in peers._processes]  # type: ignore[arg-type]
        assert ["--duty-cycle 0.25" in command for command in commands] == [False, True]
        peers.wait_ready()


def test_shares_must_fit() -> None:
    for shares in ([1.0], [1.0, 0.0], [1.0, -1.0]):
        with pytest.raises(ValueError, match="2 positive shares"):
            LocalPeers(2, cpu_shares=shares)


def test_rest_is_in_proportion() -> None:
    start = time.monotonic()
    DutyCycle(1.0).rest_after(10.0)
    assert time.monotonic() - start < 1
    start = time.monotonic()
    DutyCycle(0.25).rest_after(0.02)
    assert 0.06 <= time.monotonic() - start < 1


def test_a_work_thread_outlives_a_job_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []

    def perform(job: int) -> None:
        if job == 0:
            raise ValueError("no")
        if job == 1:
            thread.submit(2)
        done.append(job)

    thread: WorkThread[int] = WorkThread("test", perform)
    assert thread.is_idle
    for job in (0, 1):
        thread.submit(job)
    wait_until(lambda: thread.is_idle)
    thread.close()
    assert done == [1, 2]
    assert "ValueError: no" in caplog.text
