"""`distredge advise`: cases whose answer is known, and one screen of text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distredge.cli import main
from distredge.cluster.hosts import Cluster, Provider, Requester
from distredge.control.advise import Advice, advise
from distredge.graph.importer import load_model
from distredge.graph.model import Graph
from distredge.plan.options import PlanningOptions
from tests.models import ModelBuilder

PI = "synthetic-raspberry-pi-4"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = ModelBuilder()
    x = net.input(1, 3, 64, 64)
    for _ in range(4):
        x = net.relu(net.conv(x, 32))
    net.output(x)
    path = tmp_path_factory.mktemp("advise") / "net.onnx"
    path.write_bytes(net.build())
    return path


@pytest.fixture(scope="module")
def graph(model: Path) -> Graph:
    return load_model(model, cache_dir=model.parent).graph


def advised(graph: Graph, *providers: Provider, requester: Requester = Requester()) -> Advice:  # noqa: B008
    return advise(graph, Cluster("test", requester, providers), PlanningOptions(budget_s=0.2))


def test_equal_devices_without_links_share_the_work(graph: Graph) -> None:
    found = advised(graph, *(Provider(name, profile=PI) for name in "abc"))
    assert 2.2 < found.latency_gain <= 3.01
    assert 2.9 < found.stream_gain <= 3.1
    assert found.together.latency_binds.startswith("compute ")
    assert [change.what for change in found.changes] == ["one more like a"]
    assert 1.1 < found.together.latency_s / found.changes[0].latency_s < 1.4
    assert found.synthetic == ("a", "b", "c")


def test_slow_links_bring_no_gain_and_are_named(graph: Graph) -> None:
    slow = [Provider(name, profile=PI, uplink_mbps=1, downlink_mbps=1) for name in "ab"]
    found = advised(graph, Provider("near", profile=PI), *slow)
    assert found.best == "near"
    assert found.latency_gain == pytest.approx(1, abs=0.05)
    lonely = advised(graph, slow[0])
    assert lonely.latency_gain == pytest.approx(1)
    assert lonely.together.latency_binds.startswith("link ")
    assert lonely.together.stream_binds in ("link a", "link a up", "link a down")


def test_a_requester_on_a_slow_link_wants_a_faster_one(graph: Graph) -> None:
    wired = Requester(uplink_mbps=2, downlink_mbps=2)
    found = advised(graph, Provider("a", profile=PI), Provider("b", profile=PI), requester=wired)
    first = found.changes[0]
    assert first.what == "the requester's link 2 times as fast"
    assert found.together.latency_s / first.latency_s > 1.7
    assert "requester" in found.together.latency_binds
    assert "requester" in found.together.stream_binds


def test_one_screen_and_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["advise", str(model), "--cluster", "DA-NA", "--budget-s", "0.2"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    assert "synthetic profiles: no device was measured" in lines[0]
    assert main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["latency_gain"] >= 1
    assert said["together"]["latency_s"] <= said["alone"]["latency_s"]
    assert {"what", "latency_s", "images_per_second"} == set(said["changes"][0])


def test_devices_without_profiles_are_one_clear_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = tmp_path / "hosts.ini"
    hosts.write_text("[provider:a]\naddress = 127.0.0.1\n")
    assert main(["advise", str(model), "--hosts", str(hosts)]) == 2
    assert "has no profile; run `distredge profile`" in capsys.readouterr().err
