"""The command line: exit codes, one-line errors, `--input-shape`, `inspect`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import TensorProto, helper

import distredge
from distredge import cli
from distredge.commands import zoo as zoo_command
from distredge.commands.options import named_input_shapes, parse_input_shapes
from distredge.errors import DistrEdgeError, InputError
from distredge.graph import zoo
from tests.graph.support import model_of

ROOT = Path(__file__).parent.parent


@pytest.fixture
def squeezenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DISTREDGE_CACHE", str(tmp_path / "cache"))
    zoo.write(zoo.get("squeezenet").build(), tmp_path / "squeezenet.onnx")
    return str(tmp_path / "squeezenet.onnx")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == f"distredge {distredge.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["zoo", "tiny", "--seed", "-1"], ["inspect"]])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main(arguments)
    assert done.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("distredge")
    assert line.endswith("--help")


def test_a_profile_that_could_not_be_written_is_not_measured(
    squeezenet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (tmp_path / "none" / "p.json", tmp_path):
        assert cli.main(["profile", squeezenet, "-o", str(place)]) == 2
        assert f"cannot write {place}: it is a folder" in capsys.readouterr().err


def test_an_error_is_one_line_with_its_own_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class SomeError(DistrEdgeError):
        exit_code = 7

    def fail(args: object) -> int:
        raise SomeError("first line\n  second line")

    monkeypatch.setattr(zoo_command, "run", fail)
    assert cli.main(["zoo"]) == 7
    assert capsys.readouterr().err == "distredge: error: first line second line\n"


def test_ctrl_c_is_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo_command, "run", interrupted)
    assert cli.main(["zoo"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_has_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "distredge", "zoo", "--list"]
    done = subprocess.run(
        command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 141


def test_input_shapes_are_read() -> None:
    assert parse_input_shapes([]) == {}
    assert parse_input_shapes(["1x3x640x640"]) == {"": (1, 3, 640, 640)}
    assert parse_input_shapes(["a=1x3", "b:0=2X4"]) == {"a": (1, 3), "b:0": (2, 4)}
    assert parse_input_shapes(["odd=name=5"]) == {"odd=name": (5,)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["1x3xax4"], "no shape"),
        (["x="], "no shape"),
        (["1x-3"], "no shape"),
        ([""], "no shape"),
        (["=1x3"], "in front of '=' is missing"),
        (["x=1x3", "x=1x4"], "input x is given twice"),
        (["1x3", "1x3"], "the only input is given twice"),
        (["1x3", "x=1x3"], "each value needs a name"),
    ],
)
def test_bad_input_shapes_are_explained(values: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_input_shapes(values)


def test_input_shapes_find_their_inputs() -> None:
    assert named_input_shapes({"": (1, 2)}, ["only"]) == {"only": (1, 2)}
    assert named_input_shapes({"b": (1, 2)}, ["a", "b"]) == {"b": (1, 2)}
    with pytest.raises(InputError, match="no input 'c'; it has a, b"):
        named_input_shapes({"c": (1, 2)}, ["a", "b"])
    with pytest.raises(InputError, match="name one of a, b"):
        named_input_shapes({"": (1, 2)}, ["a", "b"])


def test_inspect_explains_a_model(squeezenet: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", squeezenet, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["model"] == squeezenet
    assert facts["split_share"] > 0.99
    assert facts["inputs"][0] == {
        "name": "data_0",
        "shape": [1, 3, 224, 224],
        "dtype": "float32",
        "row_axis": 2,
        "rows": 224,
    }
    assert facts["max_volumes"] == len(facts["cut_points"]) + 1 > 10
    assert [node["op_type"] for node in facts["reductions"]] == ["GlobalAveragePool"]
    assert [node["op_type"] for node in facts["tail"]][-1] == "Softmax"

    assert cli.main(["inspect", squeezenet]) == 0
    text = capsys.readouterr().out
    assert "GMACs can be split by rows" in text
    assert "reductions over rows: 1" in text
    assert "tail" in text


def test_inspect_says_why_a_barrier_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISTREDGE_CACHE", str(tmp_path))
    path = tmp_path / "vgg.onnx"
    zoo.write(zoo.get("vgg16").build((1, 3, 64, 32)), path)
    assert cli.main(["inspect", str(path), "--json"]) == 0
    (barrier,) = json.loads(capsys.readouterr().out)["barriers"]
    assert barrier["op_type"] == "Flatten"
    assert barrier["reason"]


def test_inspect_does_not_guess_a_shape_that_depends_on_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISTREDGE_CACHE", str(tmp_path))
    path = tmp_path / "found.onnx"
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("NonZero", ["a"], ["y"])]
    path.write_bytes(model_of(nodes, {"x": (1, 3, 8, 8)}, ["y"], dtypes={"y": TensorProto.INT64}))
    assert cli.main(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"][0]["shape"] is None
    assert cli.main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "output  y (its shape depends on the data) int64, whole" in said
    assert "(NonZero): its shapes depend on the data" in said


def test_inspect_refuses_what_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("no model")
    for name in (path, tmp_path / "missing.onnx"):
        assert cli.main(["inspect", str(name)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_inspect_says_which_flag_fixes_an_open_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISTREDGE_CACHE", str(tmp_path))
    path = tmp_path / "det.onnx"
    zoo.write(zoo.get("pp-ocrv6-det").build(), path)
    assert cli.main(["inspect", str(path)]) == 2
    assert "--input-shape x=" in capsys.readouterr().err
    assert cli.main(["inspect", str(path), "--input-shape", "1x3x64x96", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["inputs"][0]["shape"] == [1, 3, 64, 96]
    assert len(facts["reductions"]) == 13
