"""Testbeds that are really made. Root and iproute2 are needed; see conftest.py."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distredge.errors import TestbedError
from launch.testbed.__main__ import main
from launch.testbed.bed import BASE, Testbed
from launch.testbed.cgroup import CpuGroups
from launch.testbed.config import HostConfig, TestbedConfig
from launch.testbed.links import Names
from launch.testbed.lock import changing
from launch.testbed.measure import measure_cpu, measure_link

ROOT = Path(__file__).parents[2]
SLOW, FAST = HostConfig("slow", 0.2, 20, 40), HostConfig("fast", None, 200, 200)


FILL_THE_DISK = """
import os
try:
    open(os.environ["HOME"] + "/big", "wb").write(bytes(2 << 20))
except OSError as error:
    print(error)
"""

FORK = """
import os, signal
for _ in range(3):
    if not os.fork():
        os.setsid()
print("forked", flush=True)
signal.pause()
"""


def output(bed: Testbed, host: str, *argv: object) -> str:
    """What a program on a host prints; it must end well."""
    process = bed.run(host, [str(word) for word in argv], stdout=subprocess.PIPE, text=True)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    return printed.strip()


def python(bed: Testbed, host: str, code: str) -> str:
    return output(bed, host, sys.executable, "-I", "-S", "-c", code)


@pytest.fixture
def file_of(tmp_path):
    """Writes a configuration as a testbed file."""

    def write(config: TestbedConfig) -> str:
        file = tmp_path / "bed.ini"
        hosts = "".join(
            f"[host:{h.name}]\ncpu = {h.cpu or 1}\nuplink_mbps = {h.uplink_mbps}\n" for h in config.hosts
        )
        file.write_text(f"[testbed]\nname = {config.name}\nsubnet = {config.subnet}\n{hosts}")
        return str(file)

    return write


def test_rates_and_shares_are_kept(bed_config, traces):
    config = bed_config(SLOW, FAST, requester=HostConfig("requester", None, 1000, 1000))
    with Testbed(config) as bed:
        for ends, rate in (
            (("requester", "slow"), 40),
            (("slow", "requester"), 20),
            (("fast", "slow"), 40),
        ):
            link = measure_link(bed, *ends)
            assert link.rate_mbps == rate
            assert 0.85 * rate < link.reached_mbps < 0.98 * rate
            assert link.small_ms < 5
        cpu = measure_cpu(bed, SLOW)
        assert 0.1 < cpu.reached < 0.23, "the lower end is for machines that are busy"
    assert traces(config.name) == []


def test_set_changes_a_running_host(bed_config, file_of, capsys):
    config = bed_config(SLOW, FAST)
    with Testbed(config) as bed:
        file = file_of(config)
        assert main(["set", file, "fast", "link_mbps=30", "cpu=0.1"]) == 0
        running = Testbed.load(config.name)
        changed = HostConfig("fast", 0.1, 30, 30)
        assert running.config.hosts == (SLOW, changed)
        assert measure_link(running, "requester", "fast").reached_mbps < 30
        assert measure_cpu(running, changed).reached < 0.13
        bed.set("requester", uplink_mbps=10)
        assert measure_link(Testbed.load(config.name), "requester", "fast").reached_mbps < 10
        capsys.readouterr()
        assert main(["status", file]) == 0
        assert "fast" in capsys.readouterr().out
        for words, message in (
            (
                ["nobody", "cpu=1"],
                f"testbed {config.name} has no host 'nobody'; it has slow, fast and requester",
            ),
            (["fast", "speed=1"], "'speed=1': unknown key; keys are link_mbps"),
            (["fast", "cpu=much"], "'cpu=much': 'much' is not a number"),
            (["fast", "cpu=-1"], "cpu -1.0 is out of range"),
            (["requester", "cpu=1"], "has no CPU share"),
            (["fast"], "set needs a host and at least one KEY=VALUE"),
        ):
            assert main(["set", file, *words]) == 2
            assert message in capsys.readouterr().err


def test_steady_hosts_get_their_share_beside_other_work(bed_config):
    config = bed_config(HostConfig("half", 0.5, 50, 50), SLOW, steady=True)
    with Testbed(config) as bed:
        cores = [python(bed, name, "import os; print(os.sched_getaffinity(0))") for name in ("half", "slow")]
        assert cores[0] != cores[1] or os.cpu_count() == 1
        busy = [sys.executable, "-I", "-S", "-c", "while True: pass"]
        with contextlib.ExitStack() as stack:
            for core in os.sched_getaffinity(0):
                process = stack.enter_context(subprocess.Popen(["taskset", "-c", str(core), *busy]))
                stack.callback(process.kill)
            assert 0.45 < measure_cpu(bed, config.hosts[0]).reached < 0.52


def test_programs_run_inside(bed_config):
    config = bed_config(SLOW, FAST)
    with Testbed(config) as bed:
        assert python(bed, "fast", "import socket; print(socket.gethostname())") == "fast"
        assert python(bed, "fast", "import socket; print(socket.gethostbyname('slow'))") == config.address(
            "slow"
        )
        cpu_group = python(bed, "fast", "print(open('/proc/self/cgroup').read())")
        assert f"/{Names(config.name).cgroup}/fast" in cpu_group
        process = bed.run("fast", [sys.executable, "-c", "import sys; sys.exit(7)"])
        assert process.wait(timeout=30) == 7
        process = bed.run("fast", ["sleep", "1000"])
        process.terminate()
        assert process.wait(timeout=30) == -signal.SIGTERM
        process = bed.run("fast", ["no-such-program"], stderr=subprocess.PIPE)
        assert b"No such file" in process.communicate(timeout=30)[1]
        assert process.returncode == 127
        assert bed.run("requester", ["true"]).wait(timeout=30) == 0
        with pytest.raises(TestbedError, match="has no host 'nobody'"):
            bed.run("nobody", ["true"])


def test_files_are_private(bed_config, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").touch()
    config = bed_config(SLOW, HostConfig("small", disk_mb=1), hide=(str(secret),))
    with Testbed(config) as bed:
        home = output(bed, "slow", "pwd")
        for place in ("/tmp", home, "/run"):
            output(bed, "slow", "touch", f"{place}/mine-{config.name}")
            assert not Path(place, f"mine-{config.name}").exists()
            assert (
                python(bed, "small", f"import os; print(os.path.exists('{place}/mine-{config.name}'))")
                == "False"
            )
        assert python(bed, "slow", "import os; print(os.path.expanduser('~root'))") == home
        # /tmp is the host's own, so the folder to hide is not even there
        assert python(bed, "slow", f"import os; print(os.path.exists('{secret}/file'))") == "False"
        assert "No space left on device" in python(bed, "small", FILL_THE_DISK)


def test_hidden_folders_are_empty(bed_config):
    config = bed_config(FAST, hide=(str(ROOT / "docs"), "/no/such/folder"))
    with Testbed(config) as bed:
        assert python(bed, "fast", f"import os; print(os.listdir('{ROOT / 'docs'}'))") == "[]"
    assert (ROOT / "docs/hosts.md").exists()


def test_down_ends_what_still_runs(bed_config, poll):
    config = bed_config(FAST)
    bed = Testbed(config)
    bed.up()
    process = bed.run("fast", [sys.executable, "-c", FORK], stdout=subprocess.PIPE)
    assert process.stdout.readline()
    # a process that left its group is still in the network namespace
    escaped = bed.run("fast", ["sleep", "1000"])
    poll(lambda: Path(f"/proc/{escaped.pid}/comm").read_text() == "sleep\n")
    (CpuGroups.find().top / "cgroup.procs").write_text(str(escaped.pid))
    bed.down()
    assert process.wait(timeout=10) == -signal.SIGKILL
    assert escaped.wait(timeout=10) == -signal.SIGKILL
    process.stdout.close()


def test_down_with_nothing_to_do(bed_config, file_of, capsys):
    config = bed_config(FAST)
    assert main(["down", file_of(config)]) == 0
    assert capsys.readouterr().out.endswith(": down\n")


def test_up_twice_is_refused_and_harmless(bed_config, file_of, capsys):
    config = bed_config(FAST)
    with Testbed(config) as bed:
        assert main(["up", file_of(config)]) == 2
        assert f"testbed {config.name} is up already; take it down first" in capsys.readouterr().err
        assert output(bed, "fast", "echo", "alive") == "alive"


def test_one_change_at_a_time(bed_config):
    bed = Testbed(bed_config(FAST))
    with changing(bed.config.name), pytest.raises(TestbedError, match="is being changed by another process"):
        Testbed(bed.config).up()


def test_a_killed_change_lasts_until_its_programs_have_ended(bed_config):
    """`ip` on its way when `up` is killed: who comes next waits for it, and so finds what it made."""
    name = bed_config(FAST).name
    with changing(name) as lock:
        orphan = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(lock,))
    with pytest.raises(TestbedError, match="is being changed"), changing(name, patience_s=0):
        pass
    orphan.communicate()
    with changing(name, patience_s=0):
        pass


def test_who_joins_while_the_group_is_removed(bed_config, monkeypatch, poll):
    """A program between its start and its group is not seen at first, and joins before the group is gone."""
    config = bed_config(FAST)
    bed = Testbed(config)
    bed.up()
    late = bed.run("fast", ["sleep", "1000"])
    poll(lambda: Path(f"/proc/{late.pid}/comm").read_text() == "sleep\n")
    look, looks = CpuGroups.processes, []

    def blind_at_first(groups, group):
        looks.append(group)
        return look(groups, group) if len(looks) > 1 else []

    monkeypatch.setattr(CpuGroups, "processes", blind_at_first)
    bed.down()
    assert late.wait(timeout=10) == -signal.SIGKILL


def test_taken_subnet(bed_config):
    first, second = bed_config(FAST), bed_config(FAST)
    with Testbed(first):
        clash = TestbedConfig(second.name, (FAST,), subnet=first.subnet)
        with pytest.raises(
            TestbedError, match=f"{first.subnet} is already in use here .* on de-{first.name}"
        ):
            Testbed(clash).up()


def test_failed_up_leaves_nothing(bed_config, traces):
    config = bed_config(FAST, congestion="nosuch")
    with pytest.raises(TestbedError, match=r"route add .* failed"):
        Testbed(config).up()
    assert traces(config.name) == []


@pytest.mark.parametrize("stage", ["link", "cgroup", "room", "done"])
def test_crash_while_coming_up(bed_config, file_of, traces, poll, stage):
    """SIGKILL at several points; `down` and `up` both clear what is left."""
    config = bed_config(FAST, SLOW)
    names = Names(config.name)
    reached = {
        "link": lambda: Path(f"/sys/class/net/{names.own_link}").exists(),
        "cgroup": lambda: CpuGroups.find().groups(names.cgroup),
        "room": lambda: (BASE / config.name / "hosts/fast/etc/passwd").exists(),
        "done": lambda: (BASE / config.name / "testbed.json").exists(),
    }[stage]
    argv = [sys.executable, "-m", "launch.testbed", "up", file_of(config)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        poll(reached)
        process.kill()
    assert config.name in Testbed.existing()
    bed = Testbed(config)
    if stage != "done":
        bed.up()
        assert output(bed, "slow", "echo", "alive") == "alive"
    bed.down()
    assert traces(config.name) == []
    assert config.name not in Testbed.existing()
