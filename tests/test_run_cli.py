"""`distredge run`: what it prints and writes, and one clear line for each bad input."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import pytest
import zmq
from onnx import helper

from distredge.cli import main
from distredge.errors import InputError
from distredge.graph.importer import load_model
from distredge.plan.compile import compile_plan
from distredge.plan.draw import random_strategy
from distredge.runtime.inputs import write_outputs
from distredge.runtime.launcher import LocalPeers
from tests.graph.support import model_of
from tests.models import ModelBuilder, chain
from tests.runtime.conftest import _started_once, nothing_left_behind, wait_until  # noqa: F401 (fixtures)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTREDGE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "chain.onnx"
    path.write_bytes(chain())
    return str(path)


def open_model(path: Path) -> str:
    import onnx

    model = onnx.load_model_from_string(chain())
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "rows"
    model.graph.output[0].type.tensor_type.ClearField("shape")
    path.write_bytes(model.SerializeToString())
    return str(path)


def test_a_model_without_inputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["a"]), helper.make_node("Cos", ["a"], ["y"])]
    path = tmp_path / "lonely.onnx"
    path.write_bytes(model_of(nodes, {}, ["y"], {"shape": np.array([1, 3, 8, 8])}))
    assert main(["run", str(path), "--peers", "2", "--frames", "2", "--check"]) == 0


def test_json(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(3).standard_normal((1, 3, 16, 6)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    output = tmp_path / "out.npz"
    arguments = [
        "--peers",
        "2",
        "--policy",
        "equal",
        "--frames",
        "5",
        "--in-flight",
        "2",
        "--check",
        "--json",
    ]
    arguments += ["--input", str(tmp_path / "x.npy"), "--output", str(output)]
    assert main(["run", model, *arguments]) == 0
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert captured.err == ""
    assert (facts["model"], facts["peers"], facts["policy"], facts["frames"]) == (model, 2, "equal", 5)
    assert facts["max_abs_error"] < 1e-5
    assert facts["planned_split_share"] == 1.0
    assert facts["images_per_second"] > 0
    assert 0 < facts["latency_s"]["median"] <= facts["latency_s"]["p95"]
    reference = onnxruntime.InferenceSession(chain(), providers=["CPUExecutionProvider"])
    (expected,) = reference.run(None, {"x0": x})
    with np.load(output) as written:
        assert written.files == [reference.get_outputs()[0].name]
        np.testing.assert_allclose(written[written.files[0]], expected, atol=1e-5)


def test_text_and_defaults(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", model, "--frames", "2", "--check"]) == 0
    out = capsys.readouterr().out
    assert "on 2 peers by proportional: 100.0% of the work is split" in out
    assert "as onnxruntime: largest error" in out


def test_a_plan_that_was_saved(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import random

    imported = load_model(model)
    strategy = random_strategy(imported.graph, 3, 2, random.Random(0))
    names = ["a", "b", "c"]
    plan = str(tmp_path / "plan.json")
    compile_plan(imported.graph, strategy, names, model=imported.weights_sha256).save(plan)
    assert main(["run", model, "--peers", "3", "--plan", plan, "--frames", "2", "--check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["policy"] == plan
    assert main(["run", model, "--peers", "2", "--plan", plan]) == 2
    assert "the plan is for 3 devices, there are 2 peers" in capsys.readouterr().err


def test_hosts(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LocalPeers(2) as peers:
        lines = [
            f"[provider:{name}]\naddress = {peer.address.removeprefix('tcp://')}\n"
            for name, peer in zip("ab", peers.wait_ready(), strict=True)
        ]
        (tmp_path / "hosts.ini").write_text("\n".join(lines))
        arguments = ["--hosts", str(tmp_path / "hosts.ini"), "--frames", "3", "--check", "--json"]
        for _ in range(2):
            assert main(["run", model, *arguments]) == 0
            assert json.loads(capsys.readouterr().out)["peers"] == 2
        assert not peers.endings()


def test_an_open_shape_comes_from_a_flag_or_from_the_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = open_model(tmp_path / "open.onnx")
    np.savez(tmp_path / "x.npz", x0=np.zeros((1, 3, 22, 6), "float32"))
    for arguments in (["--input-shape", "1x3x18x6"], ["--input", str(tmp_path / "x.npz")]):
        assert main(["run", model, "--peers", "1", "--frames", "1", *arguments]) == 0
        capsys.readouterr()
    assert main(["run", model, "--peers", "1"]) == 2
    assert "--input-shape" in one_line(capsys)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "uint8"])
def test_a_picture_is_scaled_to_the_input(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    net = ModelBuilder()
    if layout == "NHWC":
        x = net.input(1, 12, 8, 3)
        net.output(net.relu(net.transpose(x, 0, 3, 1, 2)))
    elif layout == "uint8":
        net.output(net.relu(net.add("Cast", net.input(1, 3, 12, 8, dtype="uint8"), to=1)))
    else:
        net.output(net.relu(net.input(1, 3, 12, 8)))
    (tmp_path / "m.onnx").write_bytes(net.build())
    arguments = ["--peers", "1", "--frames", "1", "--input", str(tmp_path / "photo.png")]
    assert main(["run", str(tmp_path / "m.onnx"), *arguments, "--output", str(tmp_path / "o.npz")]) == 0
    capsys.readouterr()
    with np.load(tmp_path / "o.npz") as written:
        (got,) = written.values()
    expected = np.asarray(Image.fromarray(pixels).resize((8, 12))).transpose(2, 0, 1)[None].astype("float32")
    np.testing.assert_allclose(got, expected if layout == "uint8" else expected / 255, atol=1e-6)


# ---------------------------------------------------------------------- bad input


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("distredge: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_model_that_is_none(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path / "missing.onnx")]) == 2
    assert "missing.onnx" in one_line(capsys)
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes(chain()[:-40])
    assert main(["run", str(truncated)]) == 2
    assert "truncated.onnx" in one_line(capsys)
    text = tmp_path / "text.onnx"
    text.write_text("This is no model.")
    assert main(["run", str(text)]) == 2
    assert "text.onnx is not an ONNX model" in one_line(capsys)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 3, 16, 6)), "input 'x0' has dtype float64, the model takes float32"),
        (np.zeros((1, 3, 17, 6), "float32"), "input 'x0' has shape 1x3x17x6, the model takes 1x3x16x6"),
        (np.zeros(4, "float32"), "input 'x0' has shape 4, the model takes 1x3x16x6"),
    ],
)
def test_an_input_that_does_not_fit(
    model: str, array: np.ndarray, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", array)
    assert main(["run", model, "--input", str(tmp_path / "x.npy")]) == 2
    assert message in one_line(capsys)


def test_an_input_file_that_is_none(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "names.npz", y=np.zeros(1))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "text.npz").write_text("no arrays")
    for name, message in {
        "missing.npy": "there is no such file",
        "names.npz": "the model has no input 'y'",
        "objects.npy": "is damaged, or holds something else",
        "text.npy": "is damaged",
        "text.npz": "is damaged",
        "text.png": "cannot be read as a picture",
    }.items():
        assert main(["run", model, "--input", str(tmp_path / name)]) == 2
        assert message in one_line(capsys)


def test_other_arguments_that_are_wrong(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (["--policy", "nope"], "there is no policy 'nope'"),
        (["--hosts", str(tmp_path / "none.ini")], "none.ini"),
        (["--plan", str(tmp_path / "none.json")], "none.json"),
        (["--input-shape", "1x3xax6"], "is no shape"),
        (["--peers", "1", "--frames", "1", "--output", str(tmp_path / "no" / "o.npz")], "cannot be written"),
    ):
        assert main(["run", model, *arguments]) == 2
        assert message in one_line(capsys)
    for arguments in (["--peers", "0"], ["--peers", "99999"], ["--input", ""], ["--output", ""]):
        with pytest.raises(SystemExit) as caught:
            main(["run", model, *arguments])
        assert caught.value.code == 2


def test_outputs_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(InputError, match="No space left"):
        write_outputs(str(tmp_path / "o.npz"), ["y"], [np.zeros(3)])
    assert not list(tmp_path.iterdir())


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        write_outputs(str(pipe), ["y"], [np.zeros(3)])
        content, _ = reader.communicate(timeout=10)
    assert pipe.is_fifo()
    with np.load(io.BytesIO(content)) as arrays:
        assert arrays["y"].tolist() == [0.0, 0.0, 0.0]


def test_more_peers_than_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "low.onnx").write_bytes(chain(rows=2, layers=1))
    arguments = ["--peers", "4", "--policy", "equal", "--frames", "2", "--check", "--json"]
    assert main(["run", str(tmp_path / "low.onnx"), *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["max_abs_error"] < 1e-5


def test_a_peer_that_does_not_answer(model: str, tmp_path: Path) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as silent:
        port = silent.bind_to_random_port("tcp://127.0.0.1")
        (tmp_path / "hosts.ini").write_text(f"[provider:silent]\naddress = 127.0.0.1:{port}\n")
        start = time.monotonic()
        done = distredge("run", model, "--hosts", str(tmp_path / "hosts.ini"), timeout=30)
        assert 9 < time.monotonic() - start < 25
    assert done.returncode == 2
    where = f"tcp://127.0.0.1:{port}"
    assert done.stderr.startswith(f"distredge: error: peer silent at {where} did not answer within 10 s")
    assert done.stderr.count("\n") == 1


def distredge(*arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "distredge", *arguments], capture_output=True, text=True, timeout=timeout
    )


def start_running(model: str, *more: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A run that would go on for hours, as soon as it answers frames."""
    run = subprocess.Popen(
        [sys.executable, "-m", "distredge", "run", model, "--peers", "2", "--frames", "100000000", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process = psutil.Process(run.pid)
    wait_until(lambda: len(process.children()) == 2, 30)
    peers = process.children()
    before = [peer.cpu_times().user for peer in peers]
    wait_until(lambda: all(p.cpu_times().user > b + 1 for p, b in zip(peers, before, strict=True)), 60)
    return run, peers


def ended(run: subprocess.Popen[str], peers: list[psutil.Process]) -> tuple[int, str, float]:
    start = time.monotonic()
    _, err = run.communicate(timeout=20)
    took = time.monotonic() - start
    assert not [peer for peer in peers if peer.is_running() and peer.status() != psutil.STATUS_ZOMBIE]
    return run.returncode, err, took


def test_ctrl_c_leaves_nothing(model: str) -> None:
    run, peers = start_running(model)
    run.send_signal(signal.SIGINT)
    code, err, took = ended(run, peers)
    assert (code, err) == (130, "")
    assert took < 5


def test_a_peer_that_is_killed_while_running(model: str) -> None:
    run, peers = start_running(model, "--strict")
    os.kill(peers[0].pid, signal.SIGKILL)
    code, err, took = ended(run, peers)
    assert code == 2
    assert took < 5
    assert err == "distredge: error: peer peer0 died (killed by SIGKILL)\n"
