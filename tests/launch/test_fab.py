"""fab tasks against real SSH servers on a testbed, and what they refuse."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distredge.cluster.hosts import load_hosts
from launch.session import HostSession

ROOT = Path(__file__).parents[2]


def results(said: str) -> dict[str, tuple[str, str]]:
    """name -> (ok or FAILED, text), out of the table that a task prints."""
    rows = re.findall(r"^(\S+) +(ok|FAILED)  +(.*)$", said, re.M)
    return {name: (state, text) for name, state, text in rows}


def test_from_nothing_to_running_peers_and_back(farm):
    hosts = farm.hosts("a", "b")
    code, said = farm.run("doctor", hosts=hosts)
    assert code == 0, said
    assert "not deployed yet, onnxruntime will be installed" in results(said)["a"][1]

    code, said = farm.run("deploy", hosts=hosts)
    assert code == 0, said
    assert {text for _, text in results(said).values()} == {"deployed 0.1.0 with onnxruntime: CPU usable"}

    began = time.monotonic()
    code, said = farm.run("deploy", hosts=hosts)
    assert code == 0, said
    assert {text for _, text in results(said).values()} == {"unchanged, 0.1.0 with onnxruntime: CPU usable"}
    assert time.monotonic() - began < 10

    code, said = farm.run("start", "status", "doctor", hosts=hosts)
    assert code == 0, said
    assert "onnxruntime 1." in results(said)["a"][1]
    assert len(farm.peers()) == 2
    code, said = farm.run("start", "logs", "--lines", "3", hosts=hosts)
    assert code == 0, said
    assert "was running already" in said
    assert re.search(r"^b: ready b tcp://", said, re.M)

    before = set(farm.peers())
    code, said = farm.run("restart", hosts=hosts)
    assert code == 0, said
    assert len(farm.peers()) == 2
    rows = json.loads(farm.run("status", "--as-json", hosts=hosts)[1])
    assert [row["name"] for row in rows] == ["a", "b"]
    assert before

    # one that ended by itself is no success, and is named
    os.kill(rows[0]["detail"]["pid"], signal.SIGKILL)
    code, said = farm.run("status", hosts=hosts)
    assert code == 1
    assert results(said)["a"] == ("FAILED", "not running; run fab start")
    assert results(said)["b"][0] == "ok"
    assert "fab: failed on a" in said

    code, said = farm.run("stop", hosts=hosts)
    assert code == 0, said
    assert {name: text for name, (_, text) in results(said).items()} == {
        "a": "was not running",
        "b": "stopped",
    }
    assert farm.peers() == []
    code, said = farm.run("undeploy", hosts=hosts)
    assert code == 0, said
    for name in ("a", "b"):
        assert {file.name for file in farm.home_of(name).iterdir()} <= {"lasting"}
    assert not (farm.home / ".config/distredge").exists()


@pytest.fixture(scope="module")
def deployed(farm):
    """Both large hosts deployed, in a folder that the other tests leave alone."""
    hosts = farm.hosts("a", "b", extra="deploy_dir = ~/lasting")
    code, said = farm.run("deploy", hosts=hosts)
    assert code == 0, said
    yield hosts
    code, said = farm.run("undeploy", hosts=hosts)
    assert code == 0, said
    assert farm.peers() == []


def test_keys_stay_where_they_are_made(farm, deployed):
    secrets = {}
    for name in ("a", "b"):
        keys = farm.home_of(name) / "lasting/keys"
        assert (keys / "peer.key_secret").stat().st_mode & 0o777 == 0o600
        assert keys.stat().st_mode & 0o777 == 0o700
        assert sorted(file.stem for file in (keys / "allowed").iterdir()) == ["a", "b", "requester"]
        assert (keys / "allowed" / f"{name}.key").read_text() == (keys / "peer.key").read_text()
        secrets[name] = re.search(r'secret-key = "(.*)"', (keys / "peer.key_secret").read_text())[1]
    for name in ("a", "b"):
        for file in [*farm.home.rglob("*"), *farm.home_of(name).glob("lasting/keys/**/*")]:
            if file.is_file() and file.suffix in (".key", ".key_secret"):
                owner = next((n for n in ("a", "b") if f"/{n}/home" in str(file)), None)
                assert not any(s in file.read_text() for n, s in secrets.items() if n != owner)
    own = next(farm.home.rglob("controller.key_secret"))
    assert own.stat().st_mode & 0o777 == 0o600


COMES_WITHOUT_A_KEY = """
import sys
import zmq
from distredge.cluster.hosts import load_hosts
from distredge.protocol.messages import Hello, encode
from distredge.runtime.keys import KeyPair, requester_keys
from distredge.runtime.transport import connect_dealer
cluster = load_hosts(sys.argv[1])
own, keys = requester_keys(cluster)
public, secret = zmq.curve_keypair()
with zmq.Context() as context:
    for pair, key in ((None, ""), (KeyPair(public.decode(), secret.decode()), keys[0]), (own, keys[0])):
        socket = connect_dealer(context, cluster.devices[0].endpoint, pair, key)
        socket.send(encode(Hello(1, "x", "y")))
        print(bool(socket.poll(1000)))
        socket.close(0)
"""


def test_only_the_clusters_keys_are_let_in(farm, deployed):
    code, said = farm.run("start", hosts=deployed)
    assert code == 0, said
    try:
        answered = farm.python("-c", COMES_WITHOUT_A_KEY, str(deployed)).split()
        assert answered == ["False", "False", "True"], "plain, a foreign key, ours"
        log = farm.run("logs", hosts=deployed)[1]
        assert re.search(r"^a: .*refused: somebody came without encryption", log, re.M)
        assert re.search(
            r"^a: .*refused: 10\.[0-9.]+ has a key that is none of the cluster's \(.{40}\)", log, re.M
        )
    finally:
        farm.run("stop", hosts=deployed)
    # a host that is taken out of the cluster is forgotten by the others
    text = deployed.read_text()
    try:
        deployed.write_text("\n\n".join(b for b in text.split("\n\n") if "[provider:b]" not in b))
        code, said = farm.run("deploy", hosts=deployed)
        assert code == 0, said
        allowed = farm.home_of("a") / "lasting/keys/allowed"
        assert sorted(file.stem for file in allowed.iterdir()) == ["a", "requester"]
    finally:
        deployed.write_text(text)
        code, said = farm.run("deploy", hosts=deployed)
    assert code == 0, said
    assert sorted(file.stem for file in allowed.iterdir()) == ["a", "b", "requester"]


def test_a_port_that_is_taken(farm, deployed):
    server = (
        "import socket, signal; s = socket.create_server(('', 9100)); print(1, flush=True); signal.pause()"
    )
    with farm.bed.run("a", [sys._base_executable, "-c", server], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        code, said = farm.run("doctor", hosts=deployed)
        assert code == 1
        assert re.match(rf"port 9100 is taken by process {process.pid} \(python", results(said)["a"][1])
        code, said = farm.run("start", hosts=deployed)
        process.kill()
    assert code == 1
    assert results(said)["a"][0] == "FAILED"
    assert "is taken by process" in results(said)["a"][1]
    assert results(said)["b"][0] == "ok"
    assert len(farm.peers()) == 1
    assert farm.run("stop", hosts=deployed)[0] == 0


def test_a_peer_that_cannot_start_says_why(farm, deployed):
    settings = "deploy_dir = ~/lasting\nexecution_providers = NoSuchExecutionProvider, cpu"
    hosts = farm.hosts("a", extra=settings)
    code, said = farm.run("deploy", hosts=hosts)
    assert code == 1
    assert "not usable here: NoSuchExecutionProvider" in results(said)["a"][1]
    command = next(
        farm.home_of("a").glob("lasting/releases/*/lib/*/site-packages/distredge/commands/peer.py")
    )
    text = command.read_text()
    command.write_text("raise SystemExit('broken on purpose')\n")
    code, said = farm.run("start", hosts=deployed)
    command.write_text(text)
    assert code == 1
    assert results(said)["a"] == ("FAILED", "it ended at once: broken on purpose")
    # the hosts file that it was deployed by still works
    assert farm.run("stop", "deploy", "start", "stop", hosts=deployed)[0] == 0


def test_a_deployment_that_broke_off_is_completed(farm, poll):
    hosts = farm.hosts("a", "b")
    for stage in ("wheels/*/*.part", "releases/*/bin/python"):
        process = farm.fab("deploy", hosts=hosts)
        poll(lambda stage=stage: list(farm.home_of("a").glob(f"distredge/{stage}")), 120)
        process.kill()
        process.communicate()
    assert not (farm.home_of("a") / "distredge/current").exists()
    poll(lambda: farm.run("deploy", hosts=hosts)[0] == 0, 60)
    code, said = farm.run("deploy", hosts=hosts)
    assert code == 0
    assert "unchanged" in results(said)["a"][1]
    assert list(farm.home_of("a").glob("distredge/wheels/*/*.part")) == []
    assert farm.run("undeploy", hosts=hosts)[0] == 0


def test_two_controllers_at_once(farm):
    hosts = farm.hosts("a", "b")
    with HostSession(load_hosts(hosts).providers[0]) as first:
        first.ask("lock", holder="kim@desk (process 7, deploy, since noon)")
        code, said = farm.run("deploy", hosts=hosts)
        assert code == 1
        assert results(said)["a"] == (
            "FAILED",
            "locked by kim@desk (process 7, deploy, since noon); wait for it",
        )
        assert results(said)["b"][0] == "ok"
    assert farm.run("undeploy", hosts=hosts)[0] == 0


def test_full_disk(farm):
    hosts = farm.hosts("a", "small")
    code, said = farm.run("doctor", hosts=hosts)
    assert code == 1
    assert "MB free in" in results(said)["small"][1]
    code, said = farm.run("deploy", hosts=hosts)
    assert code == 1
    state, text = results(said)["small"]
    assert state == "FAILED"
    assert re.match(r"disk full: \d+ MB are needed and \d+ free in /.*; free some space", text)
    assert results(said)["a"][0] == "ok"
    # the home folder is a file system of the host's own, so look from inside
    listed = farm.bed.run("small", ["ls", "-A"], stdout=subprocess.PIPE, text=True)
    assert listed.communicate()[0] == ""
    assert farm.run("undeploy", hosts=hosts)[0] == 0


def test_hosts_that_cannot_be_used_are_named_with_the_reason(farm, tmp_path):
    good = farm.hosts("a").read_text()
    address = re.search(r"address = (.*)", good)[1]
    network = address.rpartition(".")[0]
    other_key, no_hosts, wrong_hosts = (tmp_path / name for name in ("other", "none", "wrong"))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other_key], check=True)
    no_hosts.touch()
    kind, public, _ = other_key.with_suffix(".pub").read_text().split(maxsplit=2)
    wrong_hosts.write_text(f"{address} {kind} {public}\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = taken.getsockname()[1]

    def variant(name: str, **changes: object) -> str:
        text = good.replace("[provider:a]", f"[provider:{name}]") + "ports = 9200\n"
        for key, value in changes.items():
            text = re.sub(rf"^{key} = .*\n", "", text, flags=re.M) + f"{key} = {value}\n"
        return text

    blocks = [
        good,
        variant("gone", address=f"{network}.99", ports=9201),
        variant("nossh", address="127.0.0.1", ssh_port=closed),
        variant("noname", address="no-such-host.invalid"),
        variant("wrongkey", identity_file=other_key, deploy_dir="~/d1"),
        variant("nobody", known_hosts=no_hosts, deploy_dir="~/d2", ports=9202),
        variant("changed", known_hosts=wrong_hosts, deploy_dir="~/d3", ports=9203),
        variant("nopython", python="/no/python", deploy_dir="~/d4", ports=9204),
        variant("oldpython", python="/old/python", deploy_dir="~/d5", ports=9205),
    ]
    hosts = tmp_path / "hosts.ini"
    hosts.write_text("\n".join(blocks))
    code, said = farm.run("doctor", hosts=hosts)
    assert code == 1
    found = results(said)
    assert found["a"][0] == "ok", said
    reasons = {
        "gone": r"unreachable: .*99:22",
        "nossh": rf"unreachable: nothing listens on 127\.0\.0\.1:{closed}; is its SSH server running\?",
        "noname": r"unreachable: no such host name no-such-host\.invalid; check the address",
        "wrongkey": r"refuses our key for root; check ssh_user and identity_file",
        "nobody": rf"unknown host key; compare its key, then: ssh-keyscan -p 22 {address} >> ",
        "changed": r"another key than the one in .*wrong; find out why",
        "nopython": r"no Python 3\.11 or newer \(looked for /no/python\); install one, or set python = ",
        "oldpython": r"no Python 3\.11 or newer",
    }
    for name, reason in reasons.items():
        assert found[name][0] == "FAILED"
        assert re.match(reason, found[name][1]), found[name]
    assert f"fab: failed on {', '.join(reasons)}" in said
    left = {file.name for file in farm.home_of("a").iterdir()} - {"lasting"}
    assert left == set(), "an examination leaves nothing"


USES_THE_PEERS = """
import sys
import numpy as np
import distredge as de
with de.connect(sys.argv[1], policy="equal") as session:
    (info,) = session.get_inputs()
    (output,) = session.run(None, {info.name: np.ones(info.shape, np.float32)})
    print(len(session.plan.devices), *output.shape, flush=True)
print(sys.stdin.readline().strip())
"""


def distrun(farm, hosts: Path, *words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    argv = [sys.executable, str(farm.checkout / "launch/__main__.py"), "--hosts", str(hosts), "--", *words]
    environment = {**farm.environment, "PYTHONPATH": str(farm.checkout)}
    return subprocess.Popen(argv, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_launcher_on_other_hosts(farm, deployed, tmp_path, poll):
    model = tmp_path / "tiny.onnx"
    argv = [sys.executable, "-m", "distredge", "zoo", "tiny", "-o", str(model)]
    subprocess.run(argv, cwd=farm.checkout, check=True)

    job = distrun(farm, deployed, "python", "-c", USES_THE_PEERS, str(model))
    assert job.stdout.readline() == "2 1 8 32 32\n"
    assert len(farm.peers()) == 2
    out, err = job.communicate("bye\n", timeout=60)
    assert (job.returncode, out) == (0, "bye\n")
    poll(lambda: farm.peers() == [])

    # a launcher that is killed leaves no peer for longer than the lease
    job = distrun(farm, deployed, "python", "-c", USES_THE_PEERS, str(model))
    job.stdout.readline()
    assert len(farm.peers()) == 2
    job.kill()
    job.communicate()
    poll(lambda: farm.peers() == [])

    # nor does one that falls silent: a cut cable, a sleeping notebook
    job = distrun(farm, deployed, "python", "-c", USES_THE_PEERS, str(model))
    job.stdout.readline()
    job.send_signal(signal.SIGSTOP)
    poll(lambda: farm.peers() == [], 20)
    job.send_signal(signal.SIGCONT)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 1
    assert re.search(
        r"^distrun: peer [12] [ab] failed \(exit code \d+\); the application was ended$", err, re.M
    )


def test_launcher_names_the_peer_that_does_not_start(farm, deployed, tmp_path):
    assert farm.run("start", hosts=farm.hosts("b", extra="deploy_dir = ~/lasting"))[0] == 0
    job = distrun(farm, deployed, "true")
    _, err = job.communicate(timeout=60)
    assert job.returncode == 1
    assert re.search(r"^distrun: peer 2 b did not start: .*:9100 is in use", err, re.M), err
    assert len(farm.peers()) == 1, "the one that fab started is not the launcher's to end"
    assert farm.run("stop", hosts=deployed)[0] == 0


A = "[provider:a]\naddress = 192.0.2.1\n"
REFUSED = {
    "typo": (A + "adress = 192.0.2.1\n", r"hosts\.ini:3: \[provider:a\] adress: unknown key; did you mean"),
    "duplicate name": (A + A, r"hosts\.ini:3: \[provider:a\]: this section comes twice \(first in line 1\)"),
    "duplicate address": (A + A.replace(":a", ":b"), r"hosts\.ini:4: .* is already \[provider:a\] in line 1"),
    "simulated": ("[provider:a]\nprofile = x\n", r"hosts\.ini:1: \[provider:a\]: is simulated"),
    "no key": (
        A + "identity_file = no/key\n",
        r"hosts\.ini:1: \[provider:a\] identity_file: .*/no/key does not",
    ),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_before_any_host_is_touched(tmp_path, text, message):
    (tmp_path / "hosts.ini").write_text(text)
    for task in ("deploy", "stop"):
        began = time.monotonic()
        done = fab_here(task, "--hosts", str(tmp_path / "hosts.ini"))
        assert done.returncode == 2
        assert re.match(rf"fab: .*{message}", done.stderr), done.stderr
        assert done.stderr.count("\n") == 1
        assert time.monotonic() - began < 8, "an attempt to connect would last longer"


def test_fabrics_own_hosts_are_refused():
    done = fab_here("-H", "x,y", "deploy")
    assert done.returncode == 2
    assert done.stderr.startswith("fab: -H is not used here")
    assert done.stderr.count("\n") == 1


def fab_here(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "fabric", *words]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
