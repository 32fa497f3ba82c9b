"""CPU shares by cgroup quota, of either version.

The period is 5 ms: with the usual 100 ms, a short computation runs either at full speed or waits for the
next period, so that times have two peaks. The kernel refuses quotas under 1 ms, so small shares need a
longer period.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distredge.errors import TestbedError

PERIOD_US = 5_000
SMALLEST_QUOTA_US = 1_000


def quota_and_period(share: float) -> tuple[int, int]:
    """Microseconds of CPU time per period, and the period, for a share of cores."""
    period = PERIOD_US
    if share * period < SMALLEST_QUOTA_US:
        period = min(1_000_000, round(SMALLEST_QUOTA_US / share))
    return max(SMALLEST_QUOTA_US, round(share * period)), period


@dataclass(frozen=True, slots=True)
class CpuGroups:
    """The hierarchy that limits CPU time.

    Attributes:
        version: 1 or 2.
        top: the folder in which groups are made.
    """

    version: int
    top: Path

    @classmethod
    def find(cls, mountinfo: str | Path = "/proc/self/mountinfo") -> CpuGroups:
        """Looks for a cgroup file system that has the cpu controller.

        Raises:
            TestbedError: there is none.
        """
        for line in Path(mountinfo).read_text().splitlines():
            before, _, behind = line.partition(" - ")
            place = Path(before.split()[4])
            kind, _, options = behind.split(maxsplit=2)
            if kind == "cgroup" and "cpu" in options.split(","):
                return cls(1, place)
            if kind == "cgroup2" and "cpu" in _read(place / "cgroup.controllers").split():
                return cls(2, place)
        raise TestbedError(
            "no cgroup file system with the cpu controller is mounted; mount one on /sys/fs/cgroup"
        )

    def create(self, group: str) -> Path:
        """Makes the group `a/b` (an existing one is kept) and returns its folder."""
        folder = self.top
        for part in group.split("/"):
            if self.version == 2:
                self._enable_cpu(folder)
            folder /= part
            folder.mkdir(exist_ok=True)
        return folder

    def limit(self, group: str, share: float | None) -> None:
        """Grants a share of cores' time, or all of it."""
        folder = self.top / group
        quota, period = (-1, 100_000) if share is None else quota_and_period(share)
        if self.version == 2:
            (folder / "cpu.max").write_text(f"{'max' if share is None else quota} {period}")
            return
        # without a quota any period is valid, so the order cannot fail
        (folder / "cpu.cfs_quota_us").write_text("-1")
        (folder / "cpu.cfs_period_us").write_text(str(period))
        (folder / "cpu.cfs_quota_us").write_text(str(quota))

    def prefer(self, group: str) -> None:
        """Lets what the group's quotas grant come before all other work of this machine."""
        file, value = ("cpu.weight", 10_000) if self.version == 2 else ("cpu.shares", 262_144)
        (self.top / group / file).write_text(str(value))

    def groups(self, prefix: str) -> list[str]:
        """Groups right under the top whose names start so."""
        return sorted(path.name for path in self.top.glob(f"{prefix}*") if path.is_dir())

    def processes(self, group: str) -> list[int]:
        """Process ids in the group and all below it."""
        files = [self.top / group / "cgroup.procs", *(self.top / group).rglob("cgroup.procs")]
        return sorted({int(pid) for file in files for pid in _read(file).split()})

    def remove(self, group: str, limit_s: float = 10.0) -> None:
        """Ends all processes and removes the group and all below it; a missing group is fine.

        A program on its way into the group (enter.py) may join it at any time before it is gone, so both are
        done until both have worked; later it finds no group and ends by itself.

        Raises:
            TestbedError: the group is still there after `limit_s`.
        """
        deadline = time.monotonic() + limit_s
        folder = self.top / group
        while folder.exists():
            end_all(lambda: self.processes(group), group, limit_s)
            below = sorted((p for p in folder.rglob("*") if p.is_dir()), key=lambda p: -len(p.parts))
            try:
                for path in [*below, folder]:
                    path.rmdir()
            except OSError as error:  # busy for a moment after its last process has ended, or joined again
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    message = f"{path}: cannot be removed: {error.strerror}; end what runs in it"
                    raise TestbedError(message) from None
                time.sleep(0.005)

    def _enable_cpu(self, folder: Path) -> None:
        control = folder / "cgroup.subtree_control"
        if "cpu" in _read(control).split():
            return
        try:
            control.write_text("+cpu")
        except OSError as error:
            hint = (
                "move the processes of this group into a group below it" if error.errno == errno.EBUSY else ""
            )
            raise TestbedError(
                f"{control}: cannot enable cpu: {error.strerror}; {hint or 'are you root?'}"
            ) from None


def end_all(find: Callable[[], list[int]], where: str, limit_s: float = 10.0) -> None:
    """SIGKILL to every process found, those included that are born meanwhile, until none is.

    Raises:
        TestbedError: some are still there after `limit_s`.
    """
    deadline = time.monotonic() + limit_s
    while pids := find():
        if time.monotonic() > deadline:
            raise TestbedError(f"processes {pids} of {where} do not end; look at them with ps", pids=pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
