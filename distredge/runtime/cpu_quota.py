"""Slower processors out of fast ones: a cgroup that grants a process only a share of one core."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

PERIOD_US = 5000
"""Short: with the usual 100 ms, latencies become bimodal."""
LEAST_QUOTA_US = 1000
"""The kernel refuses less."""

_PREFIX = "distredge"


class CpuQuota:
    """A control group (v1 or v2) with a limit on CPU time.

    Args:
        share: of one core; may be above 1.
        number: tells apart the groups of one process.

    Raises:
        OSError: this process may make none.
    """

    def __init__(self, share: float, number: int) -> None:
        group, unified = own_group()
        remove_stale(group)
        self._path = group / f"{_PREFIX}-{os.getpid()}-{number}"
        period = max(PERIOD_US, round(LEAST_QUOTA_US / share))
        quota = max(LEAST_QUOTA_US, round(share * period))
        if unified:
            (group / "cgroup.subtree_control").write_text("+cpu")
        self._path.mkdir()
        try:
            if unified:
                (self._path / "cpu.max").write_text(f"{quota} {period}")
            else:
                (self._path / "cpu.cfs_period_us").write_text(str(period))
                (self._path / "cpu.cfs_quota_us").write_text(str(quota))
        except OSError:
            self.close()
            raise

    def add(self, pid: int) -> None:
        """Puts a process, with all its threads, under the limit."""
        (self._path / "cgroup.procs").write_text(str(pid))

    def close(self) -> None:
        """Removes the group; its processes must have ended."""
        # It may be busy for a moment after the process's end: the next one to look removes it then.
        with suppress(OSError):
            self._path.rmdir()

    def __enter__(self) -> CpuQuota:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def own_group() -> tuple[Path, bool]:
    """This process's group with the cpu controller, and whether it is of version 2.

    Raises:
        OSError: there is none.
    """
    found: dict[bool, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            found[False] = path
        elif not controllers:
            found[True] = path
    for unified, path in sorted(found.items()):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, behind = line.partition(" - ")
            root, mount = before.split()[3:5]
            kind, _, options = behind.split(maxsplit=2)
            if kind != ("cgroup2" if unified else "cgroup"):
                continue
            if not unified and "cpu" not in options.split(","):
                continue
            inside = path[len(root) :] if root != "/" and path.startswith(root) else path
            group = Path(mount) / inside.lstrip("/")
            if unified and "cpu" not in (group / "cgroup.controllers").read_text().split():
                continue
            return group, unified
    raise OSError("no control group with a cpu controller")


def remove_stale(group: Path) -> None:
    """Removes what processes left behind that were killed."""
    for path in group.glob(f"{_PREFIX}-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            try:
                path.rmdir()
            except OSError:
                continue
