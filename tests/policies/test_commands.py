"""`distredge plan` and `distredge compare`, and the rows behind them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distredge.cli import main
from distredge.control.compare import evaluate
from distredge.graph import zoo
from distredge.plan.execution import ExecutionPlan
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import Strategy
from distredge.sim.rates import stream_rate
from policies.parts import pricer_for, single_device
from policies.replicate import Replicate
from tests.policies.problems import chain, problem

KEYS = {
    "model",
    "cluster",
    "policy",
    "latency_s",
    "images_per_second",
    "in_flight",
    "planning_s",
    "bound_s",
    "gap",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("models") / "small.onnx"
    zoo.write(zoo.get("tiny").build(), path)
    return str(path)


@pytest.fixture
def hosts(tmp_path: Path) -> str:
    path = tmp_path / "two.ini"
    path.write_text(
        "[provider:a]\nprofile = synthetic-jetson-nano\nuplink_mbps = 100\ndownlink_mbps = 100\n"
        "[provider:b]\nprofile = synthetic-raspberry-pi-4\nuplink_mbps = 50\ndownlink_mbps = 50\n"
    )
    return str(path)


def test_plan_prints_a_row_and_saves_a_plan(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    plan = tmp_path / "plan.json"
    options = ["--cluster", "DA-NA", "--budget-s", "0.2", "--json", "-o", str(plan)]
    assert main(["plan", model, *options]) == 0
    row = json.loads(capsys.readouterr().out)
    assert set(row) == KEYS | {"winner", "lead", "latencies_s"}
    assert row["policy"] == "auto"
    assert row["latency_s"] >= row["bound_s"] > 0
    assert row["winner"] in row["latencies_s"]
    assert len(ExecutionPlan.load(plan).devices) == 4


def test_plan_in_words(model: str, hosts: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["plan", model, "--cluster", hosts, "--policy", "offload"]) == 0
    out = capsys.readouterr().out
    assert "above the lower bound" in out
    assert "by offload" in out


def test_compare_is_policies_by_cells(model: str, hosts: str, capsys: pytest.CaptureFixture) -> None:
    policies = ["offload", "equal", "replicate"]
    options = ["--cluster", hosts, "DB-NC", "--policies", ",".join(policies), "--json"]
    assert main(["compare", model, *options]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["cluster"], row["policy"]) for row in rows] == [
        (cluster, policy) for cluster in ("two", "DB-NC") for policy in policies
    ]
    assert all(set(row) >= KEYS for row in rows)


def test_compare_draws(model: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    picture = tmp_path / "picture.png"
    options = ["--cluster", "DA-NA", "--policies", "offload,equal", "--plot", str(picture)]
    assert main(["compare", model, *options]) == 0
    assert "offload" in capsys.readouterr().out
    assert picture.read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--cluster", "DA-NX"], "DA-N"),
        (["--cluster", "DA-NA", "--policy", "nobody"], "offload"),
        (["--cluster", "DA-NA", "--policy", "offload", "--as-in-paper"], "osds"),
        (["--cluster", "{dir}/negative.ini"], "uplink_mbps"),
        (["--cluster", "{dir}/unknown.ini"], "synthetic"),
        (["--cluster", "{dir}/other.ini"], "measured on model"),
        (["--cluster", "{dir}/missing.ini"], "missing.ini"),
        (["--cluster", "DA-NA", "-o", "{dir}/no/such/folder/plan.json", "--policy", "offload"], "plan.json"),
    ],
)
def test_bad_input_is_one_line(
    model: str, tmp_path: Path, options: list[str], says: str, capsys: pytest.CaptureFixture
) -> None:
    rates = "[provider:a]\nprofile = {}\nuplink_mbps = {}\n"
    (tmp_path / "negative.ini").write_text(rates.format("synthetic-jetson-nano", -5))
    (tmp_path / "unknown.ini").write_text(rates.format("synthetic-jetson-nanoo", 5))
    (tmp_path / "other.ini").write_text(rates.format("other.json", 5))
    profile = {
        "format": "distredge-profile-1",
        "device": "a",
        "model": "another",
        "graph": "f" * 64,
        "machine": "m",
        "threads": 1,
        "execution_provider": "CPUExecutionProvider",
        "segments": [{"nodes": [0], "seconds": {"1": [0.1]}}],
    }
    (tmp_path / "other.json").write_text(json.dumps(profile))
    assert main(["plan", model, *(option.replace("{dir}", str(tmp_path)) for option in options)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert says in err


def test_a_policy_that_cannot_decide_has_a_row() -> None:
    row = evaluate(problem(chain(), memory_bytes=(1.0, 1.0, 1.0)), "offload")
    assert row.latency_s is None
    assert "memory" in row.error
    assert row.to_json()["gap"] is None


def test_replicas_share_the_requesters_link() -> None:
    asked = problem(chain(rows=64), gflops=(1.0, 1.0, 1.0), mbps=(50.0, 50.0, 50.0))
    one, three = (rate_of(asked, single_device(asked, 0)), rate_of(asked, Replicate().find_strategy(asked)))
    assert three == pytest.approx(3 * one)
    sent_mbit = 8e-6 * asked.graph.tensors["x"].total_bytes
    fast = problem(chain(rows=64), gflops=(1e6,) * 3, mbps=(1e5,) * 3)
    assert rate_of(fast, Replicate().find_strategy(fast)) == pytest.approx(1000.0 / sent_mbit)


def test_one_replica_is_no_faster_than_a_stream_over_one_device() -> None:
    asked = problem(chain(rows=64), gflops=(1.0,), mbps=(50.0,))
    pricer = pricer_for(asked)
    stream = pricer.images_per_second(single_device(asked, 0), in_flight=16)
    assert rate_of(asked, single_device(asked, 0)) == pytest.approx(stream, rel=0.05)


def rate_of(asked: PlanningProblem, strategy: Strategy) -> float:
    return stream_rate(pricer_for(asked), strategy).images_per_second
