"""Pure parts of the testbed: the file, quotas, buckets, cgroup files of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distredge.errors import HostsError, TestbedError
from launch.testbed import system
from launch.testbed.__main__ import main
from launch.testbed.cgroup import CpuGroups, quota_and_period
from launch.testbed.config import HostConfig, Subnet, TestbedConfig, load_testbed
from launch.testbed.cores import place
from launch.testbed.links import bucket, packet_bytes


def load(tmp_path: Path, text: str) -> TestbedConfig:
    file = tmp_path / "My Bed-2.ini"
    file.write_text(text)
    return load_testbed(file)


def test_every_key(tmp_path):
    config = load(
        tmp_path,
        """
        [testbed]
        name = four
        subnet = 10.5.0.0/16
        queue_ms = 20
        congestion = reno
        hide = /work, /srv/x
        steady = yes
        [requester]
        link_mbps = 1000
        [host:a]
        cpu = 0.6
        link_mbps = 200
        delay_ms = 2
        jitter_ms = 0.5
        disk_mb = 100
        memory_mb = 900
        threads = 2
        [host:b]
        uplink_mbps = 10
        """,
    )
    assert config == TestbedConfig(
        "four",
        (HostConfig("a", 0.6, 200, 200, 2, 0.5, 100, 900, 2), HostConfig("b", None, 10, None)),
        HostConfig("requester", None, 1000, 1000),
        Subnet("10.5.0.0/16"),
        20,
        "reno",
        ("/work", "/srv/x"),
        steady=True,
    )
    assert [config.address(name) for name in ("requester", "a", "b")] == [
        "10.5.0.1",
        "10.5.0.11",
        "10.5.0.12",
    ]


def test_name_comes_from_the_file(tmp_path):
    assert load(tmp_path, "[host:a]\n").name == "mybed2"


MISTAKES = {
    "unknown key": ("[host:a]\ncpus = 1\n", "2: [host:a] cpus: unknown key; did you mean cpu?"),
    "unknown section": ("[provider:a]\n", "1: [provider:a]: unknown section; a testbed file has"),
    "requester's CPU": ("[requester]\ncpu = 1\n", "2: [requester] cpu: unknown key"),
    "no host": ("[testbed]\nname = x\n", "1: [testbed]: the file describes no host"),
    "empty": ("", "1: [testbed]: the file describes no host"),
    "host's name": ("[host:A B]\n", "1: [host:A B]: 'A B' cannot be a host's name"),
    "reserved": ("[host:requester]\n", "1: [host:requester]: 'requester' cannot be a host's name"),
    "long name": (
        "[testbed]\nname = morethan8\n[host:a]\n",
        "2: [testbed] name: 'morethan8' is no testbed's name",
    ),
    "subnet": (
        "[testbed]\nsubnet = 10.0.0.1/24\n[host:a]\n",
        "2: [testbed] subnet: '10.0.0.1/24' is no network",
    ),
    "public": ("[testbed]\nsubnet = 8.8.8.0/24\n[host:a]\n", "2: [testbed] subnet: '8.8.8.0/24' will not do"),
    "congestion": (
        "[testbed]\ncongestion = a b\n[host:a]\n",
        "2: [testbed] congestion: 'a b' is no congestion",
    ),
    "switch": ("[testbed]\nsteady = on\n[host:a]\n", "2: [testbed] steady: 'on' is neither yes nor no"),
    "hide": (
        "[testbed]\nhide = /\n[host:a]\n",
        "2: [testbed] hide: '/' is not the absolute path of a folder",
    ),
    "CPU": ("[host:a]\ncpu = 0\n", "2: [host:a] cpu: '0' is zero; give cores' worth of time, above 0"),
    "tiny CPU": ("[host:a]\ncpu = 0.0001\n", "2: [host:a] cpu: 0.0001 is out of range"),
    "rate": ("[host:a]\nlink_mbps = 1e9\n", "2: [host:a] link_mbps: 1000000000.0 is out of range"),
    "both rates": ("[host:a]\nlink_mbps = 1\nuplink_mbps = 2\n", "2: [host:a] link_mbps: stands for both"),
    "jitter": ("[host:a]\njitter_ms = 1\n", "2: [host:a] jitter_ms: 1.0 is more than the delay of 0.0"),
    "crowded": (
        "[testbed]\nsubnet = 10.0.0.0/27\n" + "".join(f"[host:h{i}]\n" for i in range(21)),
        "23: [host:h20]: 21 hosts do not fit into 10.0.0.0/27; give a larger subnet",
    ),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(tmp_path, text, message):
    with pytest.raises(HostsError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/My Bed-2.ini:{message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("share", "quota_us", "period_us"),
    [
        (0.6, 3000, 5000),
        (1, 5000, 5000),
        (1.5, 7500, 5000),
        (0.2, 1000, 5000),
        (0.1, 1000, 10000),
        (0.001, 1000, 1000000),
    ],
)
def test_quotas(share, quota_us, period_us):
    assert quota_and_period(share) == (quota_us, period_us)


def test_hosts_are_placed_where_they_fit():
    def placed(*shares: float | None) -> dict[str, int]:
        return place([HostConfig(f"h{i}", share) for i, share in enumerate(shares)], (4, 5))

    assert placed(0.6, 0.4, 0.3, 0.2) == {"h0": 4, "h1": 5, "h2": 5, "h3": 4}
    assert placed(0.3, 0.9) == {"h1": 4, "h0": 5}
    assert placed(0.6, 0.6, 0.5) == {}, "something must be left of each core"
    assert placed(0.2, 1.5) == placed(0.2, None) == {}


def test_packets_pass_the_smallest_bucket_whole():
    assert packet_bytes(None, 50) == 65_536
    assert packet_bytes(30_000, 50) == 65_536
    for rate in (1, 50, 200):
        segments = (packet_bytes(rate, 50) - 400) // 1448
        assert segments >= 2
        assert segments * 1514 <= bucket(rate, 50)[0]


def test_buckets():
    assert bucket(100, 50) == (12_500, 12_500 + 625_000)
    burst, limit = bucket(1, 50)
    assert burst == 2 * 1514, "two packets at least"
    assert limit == burst + 256_000, "as in a small switch at least"


V1 = "30 1 0:1 / {}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n31 1 0:2 / {}/unified rw - cgroup2 cgroup2 rw\n"
V2 = "30 1 0:1 / {} rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("mounts", "version", "top", "written"),
    [
        (V1, 1, "cpu", {"cpu.cfs_quota_us": "3000", "cpu.cfs_period_us": "5000"}),
        (V2, 2, "", {"cpu.max": "3000 5000"}),
    ],
    ids=["v1", "v2"],
)
def test_cgroup_files(tmp_path, mounts, version, top, written):
    (tmp_path / top).mkdir(exist_ok=True)
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    (tmp_path / "mountinfo").write_text(mounts.format(tmp_path, tmp_path))
    groups = CpuGroups.find(tmp_path / "mountinfo")
    assert groups == CpuGroups(version, tmp_path / top)
    folder = groups.create("de-x/a")
    groups.limit("de-x/a", 0.6)
    assert {file: (folder / file).read_text() for file in written} == written
    groups.limit("de-x/a", None)
    assert (folder / next(iter(written))).read_text() in ("-1", "max 100000")
    enabled = [(place / "cgroup.subtree_control").exists() for place in (tmp_path, tmp_path / "de-x")]
    assert enabled == [version == 2] * 2
    assert groups.groups("de-") == ["de-x"]
    assert groups.processes("de-x") == []


def test_no_cpu_controller(tmp_path):
    (tmp_path / "mountinfo").write_text("30 1 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
    with pytest.raises(TestbedError, match="no cgroup file system with the cpu controller is mounted"):
        CpuGroups.find(tmp_path / "mountinfo")


def test_missing_tools_and_rights_are_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(system, "_PATH", str(tmp_path))
    with pytest.raises(
        TestbedError, match="the program tc is missing; install it with: apt-get install iproute2"
    ):
        system.tool("tc")
    file = tmp_path / "bed.ini"
    file.write_text("[testbed]\nname = none\n[host:a]\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for command in ("up", "down"):
        assert main([command, str(file)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("testbed: a testbed needs root (namespaces, links, cgroups); run it with sudo")
        assert said.count("\n") == 1


def test_mistakes_on_the_command_line(tmp_path, capsys):
    file = tmp_path / "bed.ini"
    file.write_text("[testbed]\nname = none\n[host:a]\n")
    assert main(["status", str(file)]) == 2
    assert "testbed none is not up; start it first" in capsys.readouterr().err
    assert main(["up", str(tmp_path / "nowhere.ini")]) == 2
    assert "nowhere.ini: cannot be read" in capsys.readouterr().err
