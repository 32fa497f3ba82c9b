"""The programs in examples/ do what their docstrings say. RapidOCR's: tests/test_rapidocr.py."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from distredge.graph import zoo
from distredge.runtime.launcher import LocalPeers
from tests.docs.messages import ROOT

TESTED = {"images.py", "video.py", "embedding.py"}
TESTED_ELSEWHERE = {"rapidocr_on_peers.py", "own_policy/best_pair.py"}


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / "examples" / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model, and the hosts file of two running peers."""
    folder = tmp_path_factory.mktemp("examples")
    zoo.write(zoo.get("squeezenet").build(), folder / "model.onnx")
    with LocalPeers(2, cache_dir=folder / "cache") as peers:
        sections = [f"[provider:{p.name}]\naddress = {p.address[6:]}\n" for p in peers.wait_ready()]
        (folder / "hosts.ini").write_text("\n".join(sections))
        yield folder


@pytest.fixture(autouse=True)
def _own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTREDGE_CACHE", str(folder / "cache"))


def test_every_example_is_tested() -> None:
    found = {str(path.relative_to(ROOT / "examples")) for path in (ROOT / "examples").rglob("*.py")}
    assert found == TESTED | TESTED_ELSEWHERE


def test_images(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for at in range(5):
        Image.fromarray(rng.integers(0, 256, (50, 60, 3)).astype("uint8")).save(tmp_path / f"{at}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    images = example("images.py")
    images.main([str(folder / "model.onnx"), str(tmp_path), "--hosts", str(folder / "hosts.ini")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"{at}.png" for at in range(5)]
    whole = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    name, shape = whole.get_inputs()[0].name, whole.get_inputs()[0].shape
    for at, picture in enumerate(images.pictures(sorted(tmp_path.glob("*.png")), shape)):
        assert f"class {whole.run(None, {name: picture})[0].argmax()}," in lines[at]


def test_video(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = str(tmp_path / "film.avi")
    writer = cv2.VideoWriter(film, cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for shade in range(0, 240, 20):
        writer.write(np.full((48, 64, 3), shade, np.uint8))
    writer.release()
    video = example("video.py")
    hosts = ["--hosts", str(folder / "hosts.ini")]
    video.main([str(folder / "model.onnx"), film, *hosts])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 13
    assert lines[-1].startswith("12 frames, ")
    video.main([str(folder / "model.onnx"), film, *hosts, "--limit", "2"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 frames, ")
    with pytest.raises(SystemExit, match="no video file or camera"):
        next(video.frames(str(tmp_path / "none.mp4"), [1, 3, 8, 8]))


def test_embedding(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("DISTREDGE_HOSTS", str(folder / "hosts.ini"))
    with caplog.at_level(logging.WARNING, "application"):
        example("embedding.py").main([str(folder / "model.onnx")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert all("class" in line for line in lines[:8])
    assert lines[8] == "picture 8: no answer"
    assert "refused: input" in caplog.text
