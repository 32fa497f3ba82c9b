"""Pictures are drawn from what commands write, and bad input is one line."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import pytest

from distredge.cli import main
from distredge.plan import policy
from distredge.plot.training import Training
from policies.equal import Equal
from tests.models import chain


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTREDGE_CACHE", str(tmp_path / "cache"))
    Path("m.onnx").write_bytes(chain())


def is_picture(path: str) -> bool:
    """Whether it shows something: more than one colour."""
    if path.endswith(".svg"):
        return "<path" in Path(path).read_text()
    return bool(matplotlib.image.imread(path).std() > 0.01)


def test_a_plan_its_timeline_and_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    plan = ["plan", "m.onnx", "--cluster", "DA-NA", "--policy", "equal", "-o", "plan.json"]
    assert main([*plan, "--plot", "first.png"]) == 0
    assert main(["plot", "plan", "plan.json", "-o", "plan.svg"]) == 0
    timeline = ["plot", "timeline", "plan.json", "--model", "m.onnx", "--cluster", "DA-NA"]
    assert main([*timeline, "--in-flight", "3", "-o", "timeline.png"]) == 0
    capsys.readouterr()
    for clusters in (["DA-NA"], ["DA-NA", "DB-NB", "DC-NC", "DD-ND", "DA-NB"]):
        assert (
            main(["compare", "m.onnx", "--cluster", *clusters, "--policies", "offload,equal", "--json"]) == 0
        )
        Path("rows.json").write_text(capsys.readouterr().out)
        assert main(["plot", "comparison", "rows.json", "-o", f"rows{len(clusters)}.png"]) == 0
    measured = [{**row, "measured_latency_s": 0.02} for row in json.loads(Path("rows.json").read_text())]
    Path("measured.json").write_text(json.dumps(measured[:2]))
    assert main(["plot", "comparison", "measured.json", "-o", "measured.svg"]) == 0
    assert {"predicted", "measured"} <= set(Path("measured.svg").read_text().replace("-->", "").split())
    for name in ("first.png", "plan.svg", "timeline.png", "rows1.png", "rows5.png", "measured.svg"):
        assert is_picture(name), name


def test_profiles_measured_and_synthetic() -> None:
    profile = ["profile", "m.onnx", "--budget-s", "0.5", "-o", "p.json", "--plot", "p.png"]
    assert main(profile) == 0
    assert main(["plot", "profile", "p.json", "-o", "again.png"]) == 0
    catalog = ["plot", "profile", "synthetic-jetson-nano", "--model", "m.onnx"]
    assert main([*catalog, "-o", "stairs.png"]) == 0
    assert all(map(is_picture, ("p.png", "again.png", "stairs.png")))


class Learner(Equal):
    """Tells of training as osds does, without any."""

    def __init__(self, progress: object) -> None:
        super().__init__()
        for met, latency_s in ((10, 0.04), (20, 0.03), (30, 0.03)):
            progress(met, 30, latency_s)  # type: ignore[operator]


def test_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "get_policy", lambda name, **settings: Learner(**settings))
    plan = ["plan", "m.onnx", "--cluster", "DA-NA", "--policy", "osds", "--training", "t.json"]
    assert main(plan) == 0
    found = Training.load("t.json")
    assert (found.episodes, found.latencies_s) == ([10, 20, 30], [0.04, 0.03, 0.03])
    assert main(["plot", "training", "t.json", "-o", "t.png"]) == 0
    assert is_picture("t.png")


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("no.json").write_text("[]")
    Training("t", [1], [0.1]).save("t.json")
    for arguments, message in (
        (["plot", "plan", "none.json", "-o", "x.png"], "none.json"),
        (["plot", "comparison", "no.json", "-o", "x.png"], "no.json: holds no comparison"),
        (["plot", "training", "no.json", "-o", "x.png"], "no.json: is no training curve"),
        (["plot", "training", "t.json", "-o", "x.jpx"], "x.jpx: its ending names no kind of picture"),
        (["plot", "training", "t.json", "-o", "no/x.png"], "cannot write no/x.png: No such file"),
        (["plot", "profile", "nothing", "--model", "m.onnx", "-o", "x.png"], "no such device"),
        (["plan", "m.onnx", "--cluster", "DA-NA", "--training", "t"], "--training is for --policy osds only"),
    ):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("distredge: error: ")
        assert captured.err.count("\n") == 1
        assert message in captured.err
    assert not list(Path().glob("x.*"))
