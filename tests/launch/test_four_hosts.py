"""From a hosts file to results on four unequal hosts, and back to nothing. `make test-hosts` runs this."""

from __future__ import annotations

import json
import time

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
            assert 0.6 * rate < found < 0.97 * rate
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
