"""`examples/own_policy`, installed as a stranger would, is found by its entry point and runs frames."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs.messages import ROOT
from tests.models import chain

RUN = ["--peers", "3", "--frames", "3", "--check", "--json"]


def test_a_package_brings_a_policy(tmp_path: Path) -> None:
    source, target = tmp_path / "own_policy", tmp_path / "installed"
    shutil.copytree(ROOT / "examples" / "own_policy", source)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
    ]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, timeout=120)
    (tmp_path / "m.onnx").write_bytes(chain())

    environment = {**os.environ, "PYTHONPATH": str(target), "DISTREDGE_CACHE": str(tmp_path / "cache")}
    command = [
        sys.executable,
        "-m",
        "distredge",
        "run",
        str(tmp_path / "m.onnx"),
        "--policy",
        "best-pair",
        *RUN,
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["policy"] == "best-pair"
    assert found["max_rel_error"] < 1e-4
