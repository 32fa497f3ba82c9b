"""The zoo: every model is valid, runs, and answers differently when rows move."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from distredge.cli import main
from distredge.errors import InputError, ModelError
from distredge.graph import zoo
from distredge.graph.importer import load_model
from distredge.graph.zoo_models import packaged

NAMES = [model.name for model in zoo.models()]
REQUIRED = """
    tiny vgg16 vgg16-body resnet50 inception_v3 yolov2 ssd_vgg16 ssd_resnet50 openpose voxelnet
    alexnet densenet121 inception_v1 inception_v2 light_resnet50 shufflenet squeezenet vgg19 zfnet512
    pp-ocrv6-det
"""


def concrete_shape(model: zoo.ZooModel) -> tuple[int, ...]:
    return tuple(size or usual for size, usual in zip(model.shape, (1, 3, 640, 640), strict=True))


def session(model: onnx.ModelProto, folder: Path) -> ort.InferenceSession:
    path = folder / "model.onnx"
    zoo.write(model, path)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def weights_digest(model: onnx.ModelProto) -> str:
    digest = hashlib.sha256()
    for tensor in model.graph.initializer:
        digest.update(tensor.name.encode() + tensor.raw_data)
    return digest.hexdigest()


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a command that must be refused; returns its one line."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("distredge: error: ")
    assert err.count("\n") == 1
    return err


def test_the_zoo_is_complete() -> None:
    assert sorted(NAMES) == sorted(REQUIRED.split())


@pytest.fixture(scope="module", params=NAMES)
def built(request: pytest.FixtureRequest) -> tuple[zoo.ZooModel, onnx.ModelProto]:
    """Each model in turn; both tests of one model run before the next is built."""
    entry = zoo.get(request.param)
    return entry, entry.build()


def test_model_is_valid_and_feels_where_rows_are(
    built: tuple[zoo.ZooModel, onnx.ModelProto], tmp_path: Path
) -> None:
    entry, model = built
    assert sum(np.prod(t.dims) for t in model.graph.initializer if t.data_type == 1) == entry.parameters
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == [entry.input]

    shape = concrete_shape(entry)
    image = np.random.default_rng(7).random(shape, dtype=np.float32)
    whole = session(model, tmp_path)
    outputs = whole.run(None, {entry.input: image})
    rolled = whole.run(None, {entry.input: np.roll(image, shape[2] // 3, axis=2)})
    for info, output, other in zip(whole.get_outputs(), outputs, rolled, strict=True):
        assert np.isfinite(output).all(), info.name
        peak = np.abs(output).max()
        assert 1e-3 < peak < 100, (info.name, peak)
        assert np.ptp(output) > 0.5 * peak, f"{info.name} is near-uniform"
        assert np.abs(output - other).max() > 1e-3 * peak, f"{info.name} does not feel moved rows"


# Importing a gigabyte of fully connected weights takes long and shows nothing new.
@pytest.mark.parametrize(
    "built", [name for name in NAMES if zoo.get(name).parameters < 60_000_000], indirect=True
)
def test_listed_macs_are_those_of_the_imported_graph(
    built: tuple[zoo.ZooModel, onnx.ModelProto], tmp_path: Path
) -> None:
    entry, model = built
    serialized = model.SerializeToString()
    graph = load_model(serialized, {entry.input: concrete_shape(entry)}, cache_dir=tmp_path).graph
    assert sum(node.macs for node in graph.nodes) == pytest.approx(entry.macs, rel=0.01)


def test_a_seed_gives_the_same_weights_everywhere() -> None:
    assert weights_digest(zoo.get("tiny").build(seed=5)) == (
        "f13143709dbd108b8fc55fbb31512f4b7eaf46adc41a50faeef4077d52699d54"
    )
    assert weights_digest(zoo.get("squeezenet").build(seed=5)) == (
        "3da115588a6f29045522224094e734cfa7eceea45abf549f557c4bc8ef20440c"
    )


def test_another_seed_gives_other_weights_and_the_same_graph() -> None:
    one, two = (zoo.get("shufflenet").build(seed=seed) for seed in (0, 1))
    assert weights_digest(one) != weights_digest(two)
    assert one.graph.node == two.graph.node


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("vgg16-body", (1, 3, 64, 96)),
        ("vgg16-body", (2, 3, 32, 32)),
        ("resnet50", (1, 3, 97, 65)),
        ("inception_v3", (1, 3, 128, 160)),
        ("yolov2", (1, 3, 96, 64)),
        ("ssd_vgg16", (1, 3, 280, 290)),
        ("openpose", (1, 3, 40, 56)),
        ("voxelnet", (1, 128, 48, 40)),
        ("pp-ocrv6-det", (1, 3, 64, 96)),
    ],
)
def test_other_input_shapes(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    entry = zoo.get(name)
    whole = session(entry.build(shape), tmp_path)
    assert whole.get_inputs()[0].shape == list(shape)
    for output in whole.run(None, {entry.input: np.zeros(shape, np.float32)}):
        assert output.shape[0] == shape[0]


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("vgg16-body", (1, 3, 16, 224), "too small"),
        ("yolov2", (1, 3, 112, 100), "multiples of 32"),
        ("alexnet", (1, 3, 227, 227), "1x3x224x224 only"),
        ("tiny", (1, 3, 32), "4 dimensions"),
        ("pp-ocrv6-det", (1, 3, 600, 640), "multiples of 32"),
        ("vgg16", (1, 3, 1600, 1600), "2 GB"),
    ],
)
def test_impossible_input_shapes(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        zoo.get(name).build(shape)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"rapidocr.*pip install"):
        zoo.get("pp-ocrv6-det").build()


def test_the_command_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.onnx"
    assert main(["zoo", "tiny", "-o", str(path), "--seed", "3", "--input-shape", "1x3x8x16"]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    written = onnx.load(path)
    assert weights_digest(written) == weights_digest(zoo.get("tiny").build(seed=3))
    assert [dim.dim_value for dim in written.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 8, 16]
    assert [p.name for p in tmp_path.iterdir()] == ["t.onnx"]


def test_the_default_file_is_named_after_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["zoo", "tiny"]) == 0
    assert (tmp_path / "tiny.onnx").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vgg17"], "no model 'vgg17'"),
        ([], "name a model"),
        (["tiny", "-o", "/no/such/folder/x.onnx"], "No such file or directory"),
        (["tiny", "-o", "/"], "cannot write /"),
        (["tiny", "--input-shape", "1x3xHx32"], "no shape"),
        (["tiny", "--input-shape", "1x3x0x32"], "at least 1"),
        (["tiny", "--input-shape", "=1x3x32x32"], "missing"),
        (["tiny", "--input-shape", "data=1x3x32x32"], "no input 'data'; it has input"),
        (["tiny", "--input-shape", "1x3x8x8", "--input-shape", "1x3x9x9"], "given twice"),
    ],
)
def test_the_command_refuses(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(["zoo", *arguments], capsys)
    assert not list(tmp_path.iterdir())


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == NAMES
    for row in rows:
        assert set(row) == {"name", "description", "inputs", "gmacs", "parameters", "source"}
        assert row["gmacs"] > 0
        assert row["parameters"] > 0
    assert main(["zoo", "--list"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in NAMES)
