"""Pure parts of deploying: which wheels, which engine, units for systemd, the pid file's meaning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from distredge.cluster.hosts import Cluster, Provider, Requester
from distredge.errors import InputError, LaunchError
from launch import profile
from launch.deploy import choose_engine
from launch.fleet import Host, hosts_of, table
from launch.peers import peer_arguments
from launch.remote import boot, facts, peers, store
from launch.remote.basics import Refusal
from launch.remote.keeper import start_time
from launch.wheels import Platform, local_wheels
from tests.models import chain

PI = Platform("aarch64", "3.11", "2.36")
KEEPER = Path(boot.__file__).with_name("keeper.py")


def test_tags_go_from_the_newest_system_to_the_oldest():
    tags = PI.tags()
    assert tags[0] == "manylinux_2_36_aarch64"
    assert tags[-3:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64", "linux_aarch64"]
    with pytest.raises(LaunchError, match=r"its glibc is 2\.12; 2\.17 or newer is needed"):
        Platform("x86_64", "3.11", "2.12").tags()


def test_local_wheels_that_fit(tmp_path):
    names = [
        "onnxruntime_gpu-1.19.0-cp311-cp311-linux_aarch64.whl",
        "onnxruntime_gpu-1.23.0-cp311-cp311-linux_aarch64.whl",
        "onnxruntime_gpu-1.24.0-cp310-cp310-linux_aarch64.whl",
        "onnxruntime_gpu-1.25.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        "Some.Tool-2-py3-none-any.whl",
        "stable-3-cp38-abi3-manylinux2014_aarch64.whl",
        "not a wheel.txt",
    ]
    for name in names:
        (tmp_path / name).touch()
    found = local_wheels(str(tmp_path), PI)
    assert {name: file.name for name, file in found.items()} == {
        "onnxruntime-gpu": names[1],
        "some-tool": names[4],
        "stable": names[5],
    }
    assert local_wheels(None, PI) == {}
    with pytest.raises(LaunchError, match=r"wheels_dir /no/where is no folder"):
        local_wheels("/no/where", PI)


CPU, CUDA = ("CPUExecutionProvider",), ("CUDAExecutionProvider", "CPUExecutionProvider")


@pytest.mark.parametrize(
    ("named", "gpu", "machine", "wheels_dir", "engine", "remark"),
    [
        ((), "", "x86_64", None, "onnxruntime", ""),
        ((), "nvidia", "x86_64", None, "onnxruntime-gpu", ""),
        (CPU, "nvidia", "x86_64", None, "onnxruntime", ""),
        (CUDA, "", "x86_64", None, "onnxruntime-gpu", ""),
        ((), "", "aarch64", None, "onnxruntime", ""),
        ((), "jetson", "aarch64", None, "onnxruntime", "wheels_dir"),
        ((), "jetson", "aarch64", "/w", "onnxruntime", ""),
    ],
)
def test_engine_is_chosen_by_looking(named, gpu, machine, wheels_dir, engine, remark):
    provider = Provider("a", "h", execution_providers=named, wheels_dir=wheels_dir)
    chosen, said = choose_engine(provider, {"gpu": gpu, "machine": machine})
    assert chosen == engine
    assert (remark in said) if remark else (said == "")


def test_gpus_are_found_without_asking_nvml(monkeypatch):
    there: set[str] = set()
    monkeypatch.setattr(facts.os.path, "exists", lambda path: path in there)
    monkeypatch.setattr(facts, "read_text", lambda path: "")
    assert facts.find_gpu() == ""
    there.add("/dev/nvidiactl")
    assert facts.find_gpu() == "nvidia"
    there.add("/etc/nv_tegra_release")
    assert facts.find_gpu() == "jetson"


def test_arguments_of_a_peer():
    device = Provider("a", "h", threads=2)
    cluster = Cluster("c", Requester(), (device,))
    words = ["peer", "--bind", "{bind}", "--name", "a", "--cache-dir", "{folder}/cache"]
    assert peer_arguments(cluster, device, ()) == [*words, "--keys", "{folder}/keys", "--threads", "2"]
    plain = replace(cluster, encryption="off")
    assert peer_arguments(plain, device, ()) == [*words, "--plain", "--threads", "2"]
    usable = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert peer_arguments(cluster, device, usable)[-4:] == [
        w for n in CUDA for w in ("--execution-provider", n)
    ]
    named = Provider("a", "h", execution_providers=CPU)
    assert peer_arguments(cluster, named, usable)[-2:] == ["--execution-provider", "CPUExecutionProvider"]


def test_providers_of_one_machine_are_deployed_once():
    providers = (
        Provider("a", "h"),
        Provider("b", "g"),
        Provider("c", "h"),
        Provider("d", "h", deploy_dir="/x"),
    )
    hosts = hosts_of(Cluster("c", Requester(), providers))
    assert [host.name for host in hosts] == ["a, c", "b", "d"]


def test_table():
    assert table([("a", "ok", "x y"), ("longer", "FAILED", "z")], ("host", "", "result")).splitlines() == [
        "host            result",
        "------  ------  ------",
        "a       ok      x y",
        "longer  FAILED  z",
    ]


def test_units_for_systemd(monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(boot, "RUNNING", str(tmp_path))
    monkeypatch.setattr(boot, "SYSTEM_UNITS", str(tmp_path / "units"))
    monkeypatch.setattr(boot, "_call", lambda *words: called.append(words))
    monkeypatch.setattr(boot.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(boot.os, "geteuid", lambda: 0)
    boot.install("a", ["/usr/bin/python3", "-I", 'we"ird $x 100%', "--", "peer"])
    unit = (tmp_path / "units/distredge-a.service").read_text()
    assert 'ExecStart="/usr/bin/python3" "-I" "we\\"ird $$x 100%%" "--" "peer"\n' in unit
    assert "WantedBy=multi-user.target\n" in unit
    assert "Restart=on-failure\n" in unit
    assert called == [("systemctl", "daemon-reload"), ("systemctl", "enable", "--now", "distredge-a.service")]
    called.clear()
    assert boot.remove("a")
    assert not boot.remove("a")
    assert called == [
        ("systemctl", "disable", "--now", "distredge-a.service"),
        ("systemctl", "daemon-reload"),
    ]


def test_no_systemd(monkeypatch, tmp_path):
    monkeypatch.setattr(boot, "RUNNING", str(tmp_path / "no"))
    with pytest.raises(Refusal, match="no systemd runs here"):
        boot.install("a", ["x"])


def test_files_stay_on_their_shelves(tmp_path):
    digest = "0" * 64
    for name, shelf in (("../x", ""), ("a/b", ""), ("x.whl", "../y"), ("x.whl", "/etc"), ("", "")):
        with pytest.raises(Refusal):
            store.place_of(str(tmp_path), name, digest, shelf)
    assert store.place_of(str(tmp_path), "x.whl", digest) == f"{tmp_path}/wheels/{digest}/x.whl"
    assert store.place_of(str(tmp_path), "m.onnx", digest, "models/ab12") == f"{tmp_path}/models/ab12/m.onnx"


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(Refusal, match="is not empty and no deployment of ours; name another deploy_dir"):
        store.lock(str(tmp_path), "me")
    with pytest.raises(Refusal, match="is no deployment of ours; nothing was removed"):
        store.undeploy(str(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_pid_file_names_one_process_for_good(tmp_path):
    (tmp_path / "run").mkdir()
    own = {"pid": os.getpid(), "start": start_time(os.getpid()), "peer": 1, "since_s": 0.0}
    for name, run in (
        ("own", own),
        ("reused", {**own, "start": own["start"] - 1}),
        ("gone", {**own, "pid": 1 << 22}),
    ):
        (tmp_path / f"run/{name}.json").write_text(json.dumps(run))
    (tmp_path / "run/broken.json").write_text("{")
    assert list(peers.runs(str(tmp_path))) == ["own"]
    assert not peers.stop(str(tmp_path), "reused"), "whoever has that number now is not ours to end"
    assert not (tmp_path / "run/reused.json").exists()


@pytest.fixture
def keeper(tmp_path, poll):
    """Starts a keeper; its run file and its log."""
    started = []

    def start(code: str) -> tuple[subprocess.Popen[bytes], Path, Path]:
        run, log = tmp_path / "run.json", tmp_path / "log"
        argv = [
            sys.executable,
            "-I",
            str(KEEPER),
            str(run),
            str(log),
            "DISTREDGE_PORT=7",
            "COLOUR=blue",
            "--",
        ]
        process = subprocess.Popen([*argv, sys.executable, "-u", "-c", code])
        started.append(process)
        poll(lambda: run.exists() or process.poll() is not None)
        return process, run, log

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_keeper_passes_signals_on(keeper, poll):
    code = "import os, signal, sys\n"
    code += "signal.signal(signal.SIGTERM, lambda *_: (print('bye'), sys.exit(0)))\n"
    code += "print(os.environ['COLOUR'])\nwhile True: signal.pause()"
    process, run, log = keeper(code)
    about = json.loads(run.read_text())
    assert (about["pid"], about["port"]) == (process.pid, 7)
    poll(lambda: "blue" in log.read_text())
    process.terminate()
    assert process.wait(20) == 0
    assert not run.exists()
    assert "bye\n" in log.read_text()
    assert "keeper: ended by exit code 0" in log.read_text()


def test_keepers_log_turns(keeper):
    process, run, log = keeper("for i in range(50): print('x' * 99999)\nraise SystemExit(3)")
    assert process.wait(20) == 1
    assert not run.exists()
    sizes = {file.name: file.stat().st_size for file in log.parent.iterdir()}
    assert set(sizes) == {"log", "log.1", "log.2"}
    assert max(sizes.values()) <= 1_000_000
    assert "ended by exit code 3" in log.read_text()


def test_peer_goes_with_its_keeper(keeper, poll):
    process, run, _ = keeper("import signal\nsignal.pause()")
    peer = json.loads(run.read_text())["peer"]
    process.kill()
    process.wait()
    poll(lambda: not Path(f"/proc/{peer}").exists())


def test_devices_are_measured_as_profile_is_told(tmp_path, monkeypatch):
    """What `fab profile` is given reaches `distredge profile` on the host."""
    asked = {}

    class Session:
        def ask(self, what, **how):
            asked[what] = how
            row = {"seconds": 0.1, "spread": 0.0, "row_counts": 3}
            return {"missing": [], "facts": {"cores": 2}, "profile": {"profile": {"graph": "f"}, "row": row}}[
                what
            ]

    a = Provider(name="a", address="192.0.2.1")
    cluster = Cluster("hosts", Requester(), (a,), path=str(tmp_path / "hosts.ini"))

    def on_all(cluster, what, measure, *, lock):
        measure(Session(), Host((a,)), print)
        return []  # so that no link is measured

    monkeypatch.setattr(profile, "on_all", on_all)
    model = tmp_path / "model.onnx"
    model.write_bytes(chain())
    told = {"input_shapes": ["1x3x20x6"], "preprocess": "imagenet", "budget_s": 5.0}
    profile.profile(cluster, model, **told)
    assert " ".join(asked["profile"]["words"]) == (
        "--threads 2 --name a --budget-s 5.0 --input-shape 1x3x20x6 --preprocess imagenet"
    )
    with pytest.raises(InputError, match="--preprocess nonsense: 'nonsense' is not understood"):
        profile.profile(cluster, model, preprocess="nonsense")
