"""The testbed's upper half: SSH servers, the hosts file that leads to them, delays."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distredge.cluster.hosts import load_hosts
from distredge.errors import TestbedError
from launch.testbed import system
from launch.testbed.bed import Testbed
from launch.testbed.config import HostConfig
from launch.testbed.measure import measure_link

A = HostConfig("a", 0.6, 200, 100, memory_mb=900)
LATE = HostConfig("late", None, 50, 50, delay_ms=10, jitter_ms=1)


@pytest.fixture
def need_sshd(skip_or_fail):
    if shutil.which("sshd", path=system._PATH) is None:
        skip_or_fail("no sshd: apt-get install openssh-server")


ROOT = Path(__file__).parent.parent.parent


def ssh(host, *words: str, known_hosts: str | None = None, identity: str | None = None):
    """Logs in as the hosts file says, with nothing of the user's own settings."""
    argv = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
    argv += ["-o", "IdentitiesOnly=yes", "-i", identity or host.identity_file]
    argv += ["-o", f"UserKnownHostsFile={known_hosts or host.known_hosts}"]
    argv += ["-p", str(host.ssh_port), f"{host.ssh_user}@{host.address}", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


def test_unmodified_ssh_reaches_every_host(need_sshd, bed_config, tmp_path, poll):
    config = bed_config(A, HostConfig("b", 0.5), ssh=True, hide=(str(tmp_path),))
    with Testbed(config) as bed:
        cluster = load_hosts(bed.hosts_file)
        assert cluster.names == ("a", "b")
        a = cluster.device("a")
        assert (a.address, a.threads, a.memory_mb) == (config.address("a"), 1, 900)
        assert (a.uplink_mbps, a.downlink_mbps) == (191.2, 95.6)
        for host in cluster.providers:
            # the machine's own home, temporary folder and hidden folders stay out of sight
            done = ssh(host, "hostname; pwd; echo ~; ls -A ~ /tmp")
            home = str(bed.home)
            assert done.stdout.split("\n")[:3] == [host.name, home, home]
            # of the machine's /tmp a host sees the checkout and the interpreter, if they are there
            seen = sorted({path.parts[2] for path in (ROOT, Path(sys.prefix)) if path.parts[1] == "tmp"})
            assert done.stdout.split("\n")[3:] == ["/tmp:", *seen, "", f"{home}:", ""], done
            assert (
                ssh(host, f"{host.python} -c 'import sys; print(sys.version_info[:2])'").stdout == "(3, 11)\n"
            )
        # a server that is left running after its session belongs to the host
        ssh(a, "nohup sleep 1000 >/dev/null 2>&1 & echo started")
        poll(lambda: bed.status()[1]["processes"] == 1)  # its own session ends in a moment
        assert Path(a.identity_file).stat().st_mode & 0o777 == 0o600


def test_unknown_keys_are_refused(need_sshd, bed_config, tmp_path):
    config = bed_config(A, ssh=True)
    with Testbed(config) as bed:
        host = load_hosts(bed.hosts_file).providers[0]
        (tmp_path / "none").touch()
        assert "Host key verification failed" in ssh(host, "true", known_hosts=str(tmp_path / "none")).stderr
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
        assert "Permission denied (publickey)" in ssh(host, "true", identity=str(tmp_path / "other")).stderr


def test_delay_and_jitter(bed_config):
    config = bed_config(LATE, HostConfig("near", None, 50, 50))
    with Testbed(config) as bed:
        there, back = (measure_link(bed, *ends) for ends in (("requester", "late"), ("late", "near")))
        for link in (there, back):
            assert 19 < link.small_ms < 30, "twice the delay"
            assert 0.8 * 50 < link.reached_mbps < 50, "the rate is the link's"
        assert measure_link(bed, "requester", "near").small_ms < 5


def test_four_hosts_are_up_soon(need_sshd, bed_config):
    shares, rates, delays = (0.6, 0.4, 0.3, 0.2), (200, 100, 100, 50), (0, 0, 0, 1)
    settings = enumerate(zip(shares, rates, rates, delays, strict=True))
    hosts = [HostConfig(f"h{i}", *values) for i, values in settings]
    config = bed_config(*hosts, ssh=True)
    began = time.monotonic()
    with Testbed(config):
        assert time.monotonic() - began < 10


def test_missing_sshd_is_one_line(bed_config, monkeypatch, tmp_path):
    config = bed_config(A, ssh=True)
    for program in ("ip", "tc"):
        (tmp_path / program).symlink_to(shutil.which(program, path=system._PATH))
    monkeypatch.setattr(system, "_PATH", str(tmp_path))
    with pytest.raises(
        TestbedError, match="sshd is missing; install it with: apt-get install openssh-server"
    ):
        Testbed(config).up()
