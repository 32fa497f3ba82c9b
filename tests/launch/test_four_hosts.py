"""From a hosts file to results on unequal hosts, and back to nothing. `make test-hosts` runs this."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distredge.cluster.hosts import load_hosts

pytestmark = pytest.mark.timeout(600)

USES_THE_PEERS = """
import json, sys
import numpy as np
import onnxruntime as rt
import distredge as de
with de.connect(sys.argv[1], policy="equal") as session:
    (info,) = session.get_inputs()
    feed = {info.name: np.random.default_rng(0).standard_normal(info.shape, np.float32)}
    outputs = session.run(None, feed)
    devices = len(session.plan.devices)
whole = rt.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"]).run(None, feed)
error = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(outputs, whole, strict=True))
print(json.dumps({"devices": devices, "error": error}))
"""


def test_four_hosts(four_hosts, tmp_path):
    farm = four_hosts
    began = time.monotonic()
    hosts = farm.home / "hosts.ini"
    hosts.write_text(farm.bed.hosts_file.read_text())
    model = tmp_path / "model.onnx"
    farm.python("-m", "distredge", "zoo", "squeezenet", "-o", str(model))

    code, said = farm.run("doctor", "deploy", "start", hosts=hosts)
    assert code == 0, said
    again = time.monotonic()
    code, said = farm.run("deploy", hosts=hosts)
    assert code == 0, said
    assert said.count("unchanged") == 4
    assert time.monotonic() - again < 10
    code, said = farm.run("profile", "--model", str(model), "--budget-s", "5", hosts=hosts)
    assert code == 0, said
    measured = load_hosts(farm.home / "hosts.measured.ini")
    # a busy machine reaches less than the link allows, never more
    for provider, rate in zip(measured.providers, (200, 100, 100, 50), strict=True):
        for found in (provider.uplink_mbps, provider.downlink_mbps):
            assert 0.5 * rate < found < 0.97 * rate
        assert provider.receive_ms_per_mb > 0  # no host has a core to spare
    code, said = farm.run("status", hosts=hosts)
    assert code == 0, said

    # the Python API on running peers, then the launcher with peers of its own
    found = json.loads(farm.python("-c", USES_THE_PEERS, str(model), hosts=hosts))
    assert found["devices"] == 4
    assert found["error"] < 5e-6
    assert farm.run("stop", hosts=hosts)[0] == 0
    words = ("-m", "launch", "--hosts", str(hosts), "--", "python", "-c", USES_THE_PEERS, str(model))
    found = json.loads(farm.python(*words))
    assert found["devices"] == 4
    assert found["error"] < 5e-6

    code, said = farm.run("undeploy", hosts=hosts)
    assert code == 0, said
    assert farm.peers() == []
    for provider in measured.providers:
        assert list(farm.home_of(provider.name).iterdir()) == []
        temporary = farm.home_of(provider.name).parent / "tmp"
        left = {file.name for file in temporary.rglob("*") if file.is_file()}
        assert left == set()
    print(f"four hosts: {time.monotonic() - began:.0f} s")


GUIDE = Path(__file__).parents[2] / "docs/cluster.md"
FIRST_ADDRESS = 11  # the guide's boards are 192.168.7.11 to .13
EXPECTED = {
    "fab doctor": (r"^kitchen +ok .*not deployed yet", 3),
    "fab deploy": (r"^garage +ok +deployed", 3),
    "fab status": (r"^attic +ok +process \d+ on tcp://", 6),
    "fab profile": (r"^kitchen +ok .* ms alone, .*Mbit/s", 3),
    "distredge run": (r"auto", 0),
    "distredge compare": (r"^ +offload +[\d.]+ +[\d.]+ ", 0),
    "python my_app.py": (r"^answer of shape \(1, 1000", 0),
    "python -m launch": (r"^answer of shape \(1, 1000", 0),
    "fab undeploy": (r"^kitchen +ok +removed", 6),
}
"""The first word of a block -> a line that it prints, and in how many lines hosts are ok."""


def test_the_guide(four_hosts):
    """Every block of docs/cluster.md, in order, as its reader would; the boards are three of the hosts."""
    farm, bed = four_hosts, four_hosts.bed
    addresses = {f"192.168.7.{FIRST_ADDRESS + i}": bed.config.address(f"h{i}") for i in range(3)}
    ssh = farm.home / ".ssh"
    ssh.mkdir(mode=0o700)
    shutil.copy(bed.folder / "ssh/id", ssh / "cluster")  # what ssh-copy-id does, from the other side
    seen = set()
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE.read_text(), re.M | re.S):
        for written, real in addresses.items():
            block = block.replace(written, real)
        if language == "ini":
            python = f"python = {sys._base_executable}\n"
            (farm.checkout / "hosts.ini").write_text(
                block.replace("ssh_user = pi\n", f"ssh_user = root\n{python}")
            )
        elif language == "python":
            (farm.checkout / "my_app.py").write_text(block)
        elif language == "sh":
            said = _in_a_shell(farm, block)
            for command, (line, hosts) in EXPECTED.items():
                if re.search(rf"^(\w+=\S+ )?{command}", block, re.M):
                    seen.add(command)
                    assert re.search(line, said, re.M), said
                    assert not hosts or len(re.findall(r"^\w+ +ok ", said, re.M)) >= hosts, said
        else:
            assert language == "console"
    assert seen == EXPECTED.keys(), "the guide has a step that this test does not know, or lacks one"
    assert farm.peers() == []
    for name in ("h0", "h1", "h2"):
        assert list(farm.home_of(name).iterdir()) == []


def _in_a_shell(farm, block: str) -> str:
    """What the commands print; they must end well."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", block],
        cwd=farm.checkout,
        # the compiled evaluator is the machine's: making it anew takes most of a minute
        env={"XDG_CACHE_HOME": str(Path.home() / ".cache"), **farm.environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    return done.stdout
