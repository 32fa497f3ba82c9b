"""The layout holds: what a fresh process loads, what is public, what the metadata say.

The import contracts in setup.cfg see every `import` in the source; these tests see what really ends up in
`sys.modules`, through a package's `__init__` and through third-party packages too.
"""

from __future__ import annotations

import configparser
import importlib
import json
import pkgutil
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import distredge

ROOT = Path(__file__).parent.parent
LEARNING = {"torch", "tianshou", "gymnasium"}
REMOTE = {"fabric", "invoke", "paramiko"}
MODEL = {"onnx", "onnxruntime"}

# The table of docs/design/layout.md: package -> what no module of it may load.
FORBIDDEN = {
    "distredge.graph": {
        "zmq",
        "distredge.plan",
        "distredge.protocol",
        "distredge.runtime",
        *LEARNING,
        *REMOTE,
    },
    "distredge.cluster": {"zmq", "distredge.plan", "distredge.protocol", *MODEL, *LEARNING, *REMOTE},
    "distredge.plan": {"zmq", "distredge.protocol", *MODEL, *LEARNING, *REMOTE},
    "distredge.protocol": {
        "zmq",
        "asyncio",
        "distredge.sim",
        "distredge.runtime",
        *MODEL,
        *LEARNING,
        *REMOTE,
    },
    "distredge.sim": {"zmq", "distredge.runtime", "distredge.control", *MODEL, *LEARNING, *REMOTE},
    "distredge.runtime": {"distredge.sim", "distredge.control", "policies", "launch", *LEARNING, *REMOTE},
    "distredge.control": {"policies", "launch", *LEARNING, *REMOTE},
    "distredge.view": {
        "zmq",
        "distredge.protocol",
        "distredge.runtime",
        "distredge.sim",
        *MODEL,
        *LEARNING,
        *REMOTE,
    },
    "distredge.serve": {"distredge.sim", "distredge.control", "policies", "launch", *LEARNING, *REMOTE},
    "distredge.commands": {"numpy", "zmq", "policies", "launch", *MODEL, *LEARNING, *REMOTE},
    "policies": {"zmq", "distredge.runtime", "distredge.control", "launch", *LEARNING, *REMOTE},
    "launch": {"policies", *LEARNING},
}
# graph's modules on the near side of the ONNX border
PURE_GRAPH = ("rows", "model", "part", "rules")
# modules that a package keeps out of the rule on purpose, and why
EXCEPTIONS = {
    "policies.osds_agent": "the one file that learns",
    "policies.osds_env": "its environment",
    "policies.osds": "the policy, which stands on both",
}


def modules_of(package: str) -> list[str]:
    """The package and every module in it, without importing any."""
    folder = ROOT / package.replace(".", "/")
    found = (info.name for info in pkgutil.walk_packages([str(folder)], f"{package}."))
    return [package, *(name for name in found if name not in EXCEPTIONS and not name.endswith("__main__"))]


def run_python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(modules: list[str]) -> set[str]:
    """What `sys.modules` holds in a fresh process that has imported these."""
    code = (
        "import importlib, json, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    return set(json.loads(run_python(code, *modules)))


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_loads_nothing_forbidden(package: str) -> None:
    assert not loaded_by(modules_of(package)) & FORBIDDEN[package]


def test_rows_and_rules_load_no_onnx() -> None:
    assert not loaded_by([f"distredge.graph.{name}" for name in PURE_GRAPH]) & MODEL


def test_listing_policies_loads_no_torch() -> None:
    code = "import distredge.plan.policy as p, sys; p.policy_names(); print('torch' in sys.modules)"
    assert run_python(code).strip() == "False"


def test_package_inits_are_empty() -> None:
    for path in ROOT.glob("distredge/*/__init__.py"):
        assert path.read_text() == "", f"{path}: what an __init__ imports, every user of the package loads"


def test_the_top_package_is_lazy() -> None:
    assert not loaded_by(["distredge", "distredge.cli"]) & {"numpy", "onnx", "onnxruntime", "zmq", "msgpack"}


def test_help_is_quick() -> None:
    code = "import sys\nfrom distredge.cli import main\nsys.exit(main(['--help']))"
    run_python(code)  # compiles the bytecode
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        run_python(code)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.5  # 0.1 on a quiet machine


@pytest.mark.parametrize("name", distredge.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(distredge, name) is not None
    assert name in dir(distredge)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        distredge.nothing  # noqa: B018


def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_entry_points_lead_somewhere() -> None:
    points = settings()["options.entry_points"]
    for line in lines(points["console_scripts"]) + lines(points["distredge.policies"]):
        module, name = line.split("=")[1].strip().split(":")
        if module not in EXCEPTIONS:
            assert hasattr(importlib.import_module(module), name), line


def test_every_requirement_is_pinned_and_no_registry_named() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text
    pins = dict(line.split("==") for line in lines(text))
    assert pins["torch"] == "2.13.0"
    pinned = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    config = settings()
    groups = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    for requirement in (line for group in groups for line in lines(group)):
        name = re.split(r"[<>=!~\[; ]", requirement)[0]
        assert re.sub(r"[-_.]+", "-", name).lower() in pinned, name


def test_launch_is_not_in_the_wheel() -> None:
    assert lines(settings()["options.packages.find"]["include"]) == ["distredge*", "policies*"]


def test_a_stranger_finds_what_is_needed() -> None:
    for name in ("README.md", "CHANGELOG.md", "LICENSE", "hosts.ini", "Makefile", "constraints.txt"):
        assert (ROOT / name).stat().st_size > 0
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_the_example_hosts_file_is_local() -> None:
    cluster = distredge.load_hosts(ROOT / "hosts.ini")
    assert len(cluster.providers) >= 2
    assert {provider.address for provider in cluster.providers} == {"127.0.0.1"}
