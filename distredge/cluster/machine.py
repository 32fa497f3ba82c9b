"""What this machine is, as far as its speed depends on it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """Equal machines compute at equal speed: a profile of one holds for the other.

    Attributes:
        architecture: such as `x86_64` or `aarch64`.
        processor: the board or processor, as Linux names it.
        cores: that this process may use.
        quota: cores' worth of time that a cgroup grants it; None for no limit.
    """

    architecture: str
    processor: str
    cores: int
    quota: float | None = None

    @property
    def fingerprint(self) -> str:
        """One readable line, equal for equal machines."""
        cores = f"{self.cores} core{'s' * (self.cores != 1)}"
        limit = "" if self.quota is None else f", {self.quota:.2f} cores' time"
        return f"{self.architecture}, {self.processor}, {cores}{limit}"


def this_machine(root: str | Path = "/") -> Machine:
    """Looks at the machine that runs this process.

    Args:
        root: where `proc` and the cgroup file systems lie; other than "/" in tests only.
    """
    return Machine(platform.machine(), _processor(Path(root)), len(os.sched_getaffinity(0)), cpu_quota(root))


def cpu_quota(root: str | Path = "/") -> float | None:
    """Cores' worth of time that this process's cgroup (v1 or v2) and those above grant; None: no limit."""
    root = Path(root)
    found: list[float] = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in _mounts(root, unified=not controllers):
            parts = [part for part in path.split("/") if part and part != ".."]
            quotas = (_quota_of(mount.joinpath(*parts[:depth])) for depth in range(len(parts) + 1))
            found.extend(quota for quota in quotas if quota is not None)
    return min(found, default=None)


def _quota_of(group: Path) -> float | None:
    quota, period = "max", "0"
    if text := _text(group / "cpu.max"):
        quota, period = text.split()
    elif text := _text(group / "cpu.cfs_quota_us"):
        quota, period = text, _text(group / "cpu.cfs_period_us")
    if quota == "max" or int(quota) < 0:
        return None
    return int(quota) / int(period)


def _mounts(root: Path, *, unified: bool) -> list[Path]:
    """Where the hierarchy with the cpu controller is mounted from its top."""
    found = []
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, behind = line.partition(" - ")
        place = before.split()
        kind, _, options = behind.split(maxsplit=2)
        wanted = kind == "cgroup2" if unified else kind == "cgroup" and "cpu" in options.split(",")
        if wanted and place[3] == "/":
            found.append(root / place[4].lstrip("/"))
    return found


def _processor(root: Path) -> str:
    board = _text(root / "proc/device-tree/model").strip("\0")
    if board:
        return board
    names = dict(line.split(":", 1) for line in _text(root / "proc/cpuinfo").splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in names.items()}
    return named.get("model name") or named.get("Model") or named.get("Hardware") or "unknown processor"


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
