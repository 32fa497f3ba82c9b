"""What a host gets: wheels for its platform, collected here, because it may see no registry."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from distredge import __version__
from distredge.errors import LaunchError
from launch.session import sha256

ROOT = Path(__file__).resolve().parents[1]
# what the wheel of this project is made of
_SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "distredge", "policies")
_OLDEST_GLIBC = 17
_WHEEL = re.compile(
    r"(?P<name>[^-]+)-(?P<version>[^-]+)(-\d[^-]*)?-(?P<py>[^-]+)-(?P<abi>[^-]+)-(?P<os>[^-]+)\.whl"
)


@dataclass(frozen=True, slots=True)
class Platform:
    """What decides which wheels fit.

    Attributes:
        machine: as `uname -m` says.
        python: major and minor version, `3.11`.
        glibc: its version, `2.36`.
    """

    machine: str
    python: str
    glibc: str

    def tags(self) -> list[str]:
        """Names of this platform in wheels, the best first."""
        major, minor = (int(number) for number in self.glibc.split(".")[:2])
        if major != 2 or minor < _OLDEST_GLIBC:
            raise LaunchError(
                f"its glibc is {self.glibc}; 2.{_OLDEST_GLIBC} or newer is needed: update the system"
            )
        newest = [f"manylinux_2_{n}_{self.machine}" for n in range(minor, _OLDEST_GLIBC - 1, -1)]
        return [*newest, f"manylinux2014_{self.machine}", f"linux_{self.machine}"]

    def __str__(self) -> str:
        return f"{self.machine}, Python {self.python}, glibc {self.glibc}"


@dataclass(frozen=True, slots=True)
class Release:
    """All that is installed on a host.

    Attributes:
        id: of this very set of files for this Python.
        files: wheels by name.
        digests: SHA-256 by name, the installer's included.
        installer: name of pip's wheel.
        version: of this project.
        engine: the distribution of onnxruntime.
        own: this project's wheel.
    """

    id: str
    files: Mapping[str, Path]
    digests: Mapping[str, str]
    installer: str
    version: str
    engine: str
    own: Path

    @property
    def size_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files.values())


_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def collect(
    platform: Platform, engine: str, wheels_dir: str | None, own: Path, say: Callable[[str], None]
) -> Release:
    """Finds or fetches every wheel for a platform. What was fetched once is kept.

    Args:
        platform: of the host.
        engine: `onnxruntime` or `onnxruntime-gpu`.
        wheels_dir: folder with wheels that come before all others, constraints or not.
        own: this project's wheel, the same for every host.
        say: told what takes time.

    Raises:
        LaunchError: there is no wheel of something for this platform.
    """
    preferred = local_wheels(wheels_dir, platform)
    requirements = [*_requirements(), "pip"]
    given = [name for name in preferred if name.startswith("onnxruntime")]
    engine = given[0].replace("_", "-") if given else engine
    requirements = [r for r in [*requirements, engine] if _normal(r) not in preferred]
    constraints = [
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if _normal(line) not in preferred
    ]
    key = _digest(
        platform, requirements, constraints, sorted((str(p), sha256(p)) for p in preferred.values())
    )
    with _locks[key]:
        folder = cache_dir() / "wheels" / key
        if not (folder / "complete").exists():
            say(f"collecting wheels for {platform}")
            _download(folder, platform, [*requirements, *map(str, preferred.values())], constraints)
    names = json.loads((folder / "complete").read_text())
    files = {name: folder / name for name in names} | {own.name: own}
    digests = {**names, own.name: sha256(own)}
    installer = next(name for name in names if name.startswith("pip-"))
    identity = _digest(platform.python, sorted(digests.items()))
    return Release(identity[:16], files, digests, installer, __version__, engine, own)


def local_wheels(folder: str | None, platform: Platform) -> dict[str, Path]:
    """The newest fitting wheel of each distribution in a folder, by normal name."""
    if folder is None:
        return {}
    if not Path(folder).is_dir():
        raise LaunchError(f"wheels_dir {folder} is no folder on this machine; correct it")
    found: dict[str, Path] = {}
    for file in sorted(Path(folder).glob("*.whl"), key=lambda file: _version_key(file.name)):
        match = _WHEEL.fullmatch(file.name)
        if match is None:
            continue
        digits = platform.python.replace(".", "")
        pythons, systems = match["py"].split("."), match["os"].split(".")
        stable = match["abi"] == "abi3" and any(re.fullmatch(r"cp3\d+", tag) for tag in pythons)
        fits = stable or f"cp{digits}" in pythons or "py3" in pythons
        if fits and any(tag == "any" or tag.endswith(f"_{platform.machine}") for tag in systems):
            found[_normal(match["name"])] = file
    return found


def cache_dir() -> Path:
    """Where fetched wheels stay."""
    if os.environ.get("DISTREDGE_CACHE"):
        return Path(os.environ["DISTREDGE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distredge"


def _download(folder: Path, platform: Platform, requirements: list[str], constraints: list[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    argv += ["--only-binary=:all:", "--implementation", "cp", "--python-version", platform.python]
    argv += [word for tag in platform.tags() for word in ("--platform", tag)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(constraints))
        file.flush()
        argv += ["--constraint", file.name, "--dest", str(folder), *requirements]
        done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        shutil.rmtree(folder)
        reason = errors[-1].removeprefix("ERROR: ") if errors else done.stderr.strip()[-200:]
        raise LaunchError(
            f"cannot collect wheels for {platform}: {reason}; connect this machine, or fill wheels_dir"
        )
    names = {file.name: sha256(file) for file in sorted(folder.glob("*.whl"))}
    (folder / "complete").write_text(json.dumps(names))


def own_wheel(say: Callable[[str], None]) -> Path:
    """This project's wheel, made once for each state of its sources."""
    files = sorted(
        file
        for source in _SOURCES
        for file in ([ROOT / source] if (ROOT / source).is_file() else (ROOT / source).rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    )
    key = _digest([(str(file.relative_to(ROOT)), sha256(file)) for file in files])
    folder = cache_dir() / "own" / key
    made = list(folder.glob("*.whl"))
    if made:
        return made[0]
    say("making this project's wheel")
    with tempfile.TemporaryDirectory() as temporary:
        for file in files:
            copy = Path(temporary, "source", file.relative_to(ROOT))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        argv += ["--disable-pip-version-check", "--wheel-dir", f"{temporary}/wheel", f"{temporary}/source"]
        done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise LaunchError(f"cannot make this project's wheel: {done.stderr.strip().splitlines()[-1]}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(Path(temporary, "wheel"), folder)
    return next(folder.glob("*.whl"))


def _requirements() -> list[str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    return parser["options"]["install_requires"].split()


def _normal(requirement: str) -> str:
    """The distribution's normal name."""
    name = re.split(r"[=<>!~\[; ]", requirement.strip(), maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def _version_key(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name.split("-")[1] if "-" in name else "")]


def _digest(*things: object) -> str:
    return hashlib.sha256(json.dumps(things, default=str).encode()).hexdigest()
