"""The MPI-style launcher on this machine: one job, started and ended together."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

USES_THE_PEERS = """
import os, sys
import numpy as np
import distredge as de
with de.connect(sys.argv[1], policy="equal") as session:
    (info,) = session.get_inputs()
    outputs = session.run(None, {info.name: np.zeros(info.shape, np.float32)})
    print(len(session.plan.devices), len(outputs), os.environ["DISTREDGE_RANK"], os.environ["DISTREDGE_SIZE"])
sys.exit(5)
"""
WAITS = """
import os, signal, sys
def ended(number, frame):
    signal.signal(number, signal.SIG_IGN)  # it may come from the launcher and from its lease
    os.write(1, f"got {signal.Signals(number).name}\\n".encode())
    sys.exit(9)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, ended)
print(os.environ["DISTREDGE_HOSTS"], flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("models") / "tiny.onnx"
    subprocess.run([sys.executable, "-m", "distredge", "zoo", "tiny", "-o", file], cwd=ROOT, check=True)
    return file


@pytest.fixture
def launch(tmp_path, poll):
    """Starts jobs; in the end, none of their processes may be left."""
    jobs = []

    def start(*words: object, **popen: object) -> subprocess.Popen[str]:
        argv = [str(ROOT / "launch/distrun"), *map(str, words)]
        # the checkout may have no .venv where the tests run with another interpreter
        if not (ROOT / ".venv/bin/python").exists():
            argv[:1] = [sys.executable, str(ROOT / "launch/__main__.py")]
        pipe = subprocess.PIPE
        job = subprocess.Popen(argv, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True, **popen)
        jobs.append(job)
        return job

    yield start
    for job in jobs:
        left = peers_of(job.pid)
        if job.poll() is None:
            job.kill()
        job.communicate()
        poll(lambda left=left: not [pid for pid in left if Path(f"/proc/{pid}").exists()])
        assert left == [] or job.returncode == -signal.SIGKILL


def peers_of(launcher: int) -> list[int]:
    """Process ids of the peers that end with this launcher."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "--exit-with-parent" in words and words[words.index("--exit-with-parent") + 1] == str(launcher):
            found.append(int(file.parent.name))
    return found


def finish(job: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = job.communicate(timeout=90)
    return job.returncode, out, err


def test_application_finds_its_peers_and_its_exit_code_is_ours(launch, tiny):
    job = launch("-n", 3, "--", "python", "-c", USES_THE_PEERS, tiny)
    code, out, err = finish(job)
    assert (code, out) == (5, "3 1 0 4\n"), err


def test_peers_of_a_local_hosts_file(launch, tiny, tmp_path, free_ports):
    ports = free_ports(3)
    hosts = tmp_path / "my.ini"
    hosts.write_text(
        "".join(f"[provider:p{i}]\naddress = 127.0.0.1:{port}\n" for i, port in enumerate(ports))
    )
    code, out, err = finish(
        launch("-n", "2", "--hosts", "my.ini", "--", "python", "-c", USES_THE_PEERS, tiny)
    )
    assert (code, out) == (5, "2 1 0 3\n"), err
    show = "import os; print(open(os.environ['DISTREDGE_HOSTS']).read())"
    code, out, err = finish(launch("--hosts", hosts, "--", "python", "-c", show))
    assert re.findall(r"\[provider:(\w+)\]\naddress = 127.0.0.1\nports = (\d+)", out) == [
        (f"p{i}", str(port)) for i, port in enumerate(ports)
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_reach_the_application(launch, number):
    job = launch("-n", 1, "--", "python", "-c", WAITS)
    hosts = job.stdout.readline().strip()
    assert Path(hosts).exists()
    job.send_signal(number)
    assert finish(job) == (9, f"got {number.name}\n", "")
    assert not Path(hosts).parent.exists()


def test_a_peer_that_fails_ends_everything(launch):
    job = launch("-n", 2, "--", "python", "-c", WAITS)
    job.stdout.readline()
    victim = sorted(peers_of(job.pid))[0]
    os.kill(victim, signal.SIGKILL)
    code, out, err = finish(job)
    assert code == 1
    assert out == "got SIGTERM\n"
    assert re.fullmatch(
        r"distrun: peer [12] peer[01] failed \(killed by SIGKILL\); the application was ended\n", err
    )


def test_nothing_survives_a_killed_launcher(launch, poll):
    job = launch("-n", 2, "--", "python", "-c", WAITS)
    job.stdout.readline()
    peers = peers_of(job.pid)
    assert len(peers) == 2
    job.kill()
    assert finish(job)[1] == "got SIGTERM\n", "the application, too"
    poll(lambda: not any(Path(f"/proc/{pid}").exists() for pid in peers))


def test_an_application_killed_by_a_signal(launch):
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert finish(launch("-n", 1, "--", "python", "-c", kill))[0] == 128 + 9


def test_a_port_that_is_taken(launch, tmp_path, free_ports):
    import socket

    (port,) = free_ports(1)
    (tmp_path / "hosts.ini").write_text(f"[provider:p]\naddress = 127.0.0.1:{port}\n")
    with socket.create_server(("127.0.0.1", port)):
        code, _, err = finish(launch("--hosts", "hosts.ini", "--", "true"))
    assert code == 1
    assert f"127.0.0.1:{port} is in use" in err
    assert re.search(r"^\[1 p\] .* is in use", err, re.M), "what a peer says comes with its rank and name"
    assert "distrun: peer 1 p did not start: " in err


MISTAKES = {
    "nothing to start": ([], "name the application behind --"),
    "no peers": (["-n", "0", "--", "true"], "-n 0: at least one peer is needed"),
    "no such file": (["--hosts", "no.ini", "--", "true"], "no.ini: cannot be read"),
    "too many": (["--hosts", "{}", "-n", "9", "--", "true"], "has 1 slots, not 9; add hosts or raise slots"),
    "simulated": (["--hosts", "{}.simulated", "--", "true"], "a provider has no address"),
}


@pytest.mark.parametrize(("words", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(launch, tmp_path, words, message):
    hosts = tmp_path / "some.ini"
    hosts.write_text("[provider:a]\naddress = 127.0.0.1:9990\n")
    Path(f"{hosts}.simulated").write_text("[provider:a]\nprofile = synthetic-jetson-nano\n")
    code, _, err = finish(launch(*(word.format(hosts) for word in words)))
    assert code == 2
    assert message in err


def test_no_such_application(launch):
    code, _, err = finish(launch("-n", 1, "--", "no-such-program"))
    assert (code, err) == (127, "distrun: cannot start no-such-program: No such file or directory\n")
