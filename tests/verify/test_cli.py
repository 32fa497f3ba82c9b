"""`distredge verify`: what it prints, what it returns, what it refuses."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distredge import cli
from distredge.control import verify as control
from distredge.control.verify import verify
from distredge.graph.importer import load_model
from distredge.graph.rows import Rows
from distredge.graph.rules import PointwiseRule, WindowRule
from tests import models
from tests.models import ModelBuilder
from tests.verify.networks import NETWORKS

KEYS = {
    "model": str,
    "strategies": int,
    "peers": int,
    "split_share": float,
    "volumes": int,
    "transfers": int,
    "zero_row_parts": int,
    "reduction_bytes": int,
    "max_abs_error": float,
    "max_rel_error": float,
    "ok": bool,
}


@pytest.fixture
def branches(tmp_path: Path) -> str:
    (tmp_path / "branches.onnx").write_bytes(models.branches())
    return str(tmp_path / "branches.onnx")


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["verify", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code, out, _ = ran(capsys, *arguments, "--json")
    assert out.count("\n") == 1, "one line"
    return code, json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


# ---------------------------------------------------------------------- ok


def test_json(branches: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = report(capsys, branches, "--peers", "4", "--strategies", "6", "--seed", "3")
    assert code == 0
    for key, kind in KEYS.items():
        assert type(found[key]) is kind, key
    assert found["model"] == branches
    assert (found["peers"], found["strategies"], found["ok"]) == (4, 6, True)
    assert 0 <= found["max_rel_error"] <= found["tolerance"] == 5e-6
    assert found["split_share"] == 1.0
    assert found["volumes"] >= 3 * 3 + 3
    assert found["transfers"] > 6
    assert found["zero_row_parts"] > 0
    assert found["reduction_bytes"] == 0


def test_defaults(branches: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = report(capsys, branches)
    assert (code, found["peers"], found["strategies"]) == (0, 3, 20)


def test_reductions_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two reductions of eight and six channels: each peer sends those to each other, lanes or not."""
    (tmp_path / "m.onnx").write_bytes(models.excited())
    code, found = report(capsys, str(tmp_path / "m.onnx"), "--peers", "4", "--strategies", "10")
    assert code == 0
    assert 0 < found["reduction_bytes"] <= (8 + 6) * 4 * 3
    assert found["tolerance"] == 3e-5
    assert found["reductions"] == 2


def test_the_same_seed_gives_the_same_answer(branches: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = report(capsys, branches, "--strategies", "4", "--seed", "1")
    assert report(capsys, branches, "--strategies", "4", "--seed", "1") == first
    assert report(capsys, branches, "--strategies", "4", "--seed", "2") != first


def test_words(branches: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ran(capsys, branches, "--strategies", "2")
    assert code == 0
    assert ": ok: 2 strategies for 3 peers" in out
    assert err == ""


def test_a_process_of_its_own(branches: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "distredge", "verify", branches, "--strategies", "2", "--json"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["ok"] is True


@pytest.mark.parametrize("strategies", [1, 2, 5, 20])
def test_half_of_the_strategies_have_three_or_more_volumes(
    strategies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And their cuts fall inside branches, where more than one tensor crosses."""
    drawn = []
    whole = control.compile_plan

    def noted(graph: Any, strategy: Any, devices: Any, **options: Any) -> Any:
        drawn.append(strategy)
        return whole(graph, strategy, devices, **options)

    monkeypatch.setattr(control, "compile_plan", noted)
    model = load_model(models.branches())
    assert verify(model, strategies=strategies, seed=4).ok
    assert len(drawn) == strategies
    assert 2 * sum(s.scheme.volumes >= 3 for s in drawn) >= strategies
    if strategies == 20:
        cuts = {cut for s in drawn for cut in s.scheme.cuts}
        assert cuts & {"conv2", "relu3", "conv4", "conv5"}
        assert len(cuts) > 5


def test_input_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = NETWORKS["fpn"]()
    model = net.model()
    for at, name in ((2, "H"), (3, "W")):
        model.graph.input[0].type.tensor_type.shape.dim[at].dim_param = name
    for out in model.graph.output:
        out.type.tensor_type.ClearField("shape")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    path = str(tmp_path / "m.onnx")
    code, out, err = ran(capsys, path)
    assert (code, out) == (2, "")
    assert "--input-shape x0=1x3xHxW" in err
    assert report(capsys, path, "--input-shape", "x0=1x3x48x16", "--strategies", "2")[0] == 0
    assert report(capsys, path, "--input-shape", "1x3x32x24", "--strategies", "2")[0] == 0


# ---------------------------------------------------------------------- wrong


def test_disagreement_exits_with_1(
    branches: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = WindowRule.needs

    def shifted(self: WindowRule, out: Rows) -> tuple[Rows | None, ...]:
        first, *rest = whole(self, out)
        assert first
        moved = (
            Rows(first.start - 1, first.stop - 1) if first.start > 0 and first.stop < self.height else first
        )
        return (moved, *rest)

    monkeypatch.setattr(WindowRule, "needs", shifted)
    code, found = report(capsys, branches)
    assert code == 1
    assert found["ok"] is False
    assert found["max_rel_error"] > found["tolerance"]
    code, out, _ = ran(capsys, branches)
    assert code == 1
    assert ": WRONG: " in out


def test_a_strategy_that_cannot_be_executed_exits_with_1(
    branches: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = PointwiseRule.needs

    def longer(self: PointwiseRule, out: Rows) -> tuple[Rows | None, ...]:
        return whole(self, Rows(out.start, max(out.start + 1, out.stop - 1)))

    monkeypatch.setattr(PointwiseRule, "needs", longer)
    code, out, err = ran(capsys, branches, "--json", "--seed", "5")
    assert (code, out) == (1, "")
    assert err.startswith("distredge: error: strategy ")
    assert "of seed 5 fails: " in err
    assert err.count("\n") == 1


def test_errors_that_are_no_number_are_null(
    branches: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = control.InProcessCluster.run
    monkeypatch.setattr(
        control.InProcessCluster,
        "run",
        lambda self, feeds: [[o[..., :1] for o in f] for f in whole(self, feeds)],
    )
    code, found = report(capsys, branches, "--strategies", "1")
    assert code == 1
    assert (found["ok"], found["max_rel_error"]) == (False, None)


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no model file"),
        (b"", "not an ONNX model"),
        (b"not a model at all", "not an ONNX model"),
        (models.branches()[:-200], "not an ONNX model"),
    ],
)
def test_bad_files(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    code, out, err = ran(capsys, str(path), "--json")
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("distredge: error: ")


def test_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(capsys, str(tmp_path))[0] == 2


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("y=1x3x20x6", "no input 'y'"),
        ("x0=1x3x20", "4 dimensions"),
        ("x0=1x3x24x6", "must be"),
        ("x0=1x3x0x6", "no shape"),
        ("x0=1x3xHx6", "no shape"),
        ("=1x3x20x6", "missing"),
    ],
)
def test_bad_shapes(shape: str, message: str, branches: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ran(capsys, branches, "--input-shape", shape)
    assert (code, out) == (2, "")
    assert message in err


def test_sizes_that_the_model_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A skip that meets only where the height is even."""
    net = ModelBuilder(13)
    x = net.conv(net.input(1, 3, 24, 8), 4)
    small = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    net.output(net.add("Add", x, net.resize(small, 24, 8, by="scales", mode="nearest")))
    model = net.model()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    model.graph.output[0].type.tensor_type.ClearField("shape")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    path = str(tmp_path / "m.onnx")
    assert ran(capsys, path, "--input-shape", "1x3x26x8", "--strategies", "2")[0] == 0
    code, out, err = ran(capsys, path, "--input-shape", "1x3x25x8")
    assert (code, out) == (2, "")
    assert "25" in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["m.onnx", "--peers", "0"],
        ["m.onnx", "--peers", "-1"],
        ["m.onnx", "--peers", "two"],
        ["m.onnx", "--strategies", "0"],
        ["m.onnx", "--seed", "x"],
        ["m.onnx", "--no-such-flag"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main(["verify", *arguments])
    assert done.value.code == 2
    assert capsys.readouterr().err.startswith("distredge")


def test_more_peers_than_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.onnx").write_bytes(models.chain(8))
    code, found = report(capsys, str(tmp_path / "m.onnx"), "--peers", str(random.Random(0).randint(20, 40)))
    assert code == 0
    assert found["zero_row_parts"] > 20 * 20 // 2


def test_progress_is_for_terminals(
    branches: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    _, _, err = ran(capsys, branches, "--strategies", "2")
    assert "verifying strategies: 1 of 2" in err
    assert "\n" not in err
    assert ran(capsys, branches, "--strategies", "2", "--json")[2] == ""
