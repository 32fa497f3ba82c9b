"""An OSDS actor under `Adaptation`, and on the command line: trained once, asked at once, tuned further."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distredge.cli import main
from distredge.control.adapt import Adaptation
from distredge.control.learned import Learned
from distredge.errors import PolicyError
from distredge.plan.policy import get_policy
from distredge.sim.pricing import Pricer
from tests.control.test_adapt import BASE, CHANGES, Loop
from tests.models import chain as chain_file
from tests.policies.problems import chain, problem

pytest.importorskip("tianshou")

CHANGED = CHANGES["a link falls to a tenth"]


@pytest.fixture(scope="module")
def agent() -> Any:
    """Trained for a little while under the conditions at the start."""
    policy: Any = get_policy("osds", episodes=128, side_by_side=32)
    policy.find_strategy(replace(BASE, budget_s=600.0))
    return policy.agent


def test_it_decides_at_once_and_never_worse_than_what_is_in_use(agent: Any) -> None:
    learned, in_use, pricer = Learned(BASE, agent), agent.strategy, Pricer(CHANGED)
    decided = pricer.latency_s(agent.decide(CHANGED))
    found = pricer.latency_s(learned.quick(CHANGED, in_use, ()))
    assert found <= min(decided, pricer.latency_s(in_use))


def test_a_second_look_tunes_the_actor(agent: Any) -> None:
    learned, pricer = Learned(BASE, agent), Pricer(CHANGED)
    before = [parameter.clone() for parameter in agent.policy.actor.parameters()]
    found = pricer.latency_s(learned.search(CHANGED, agent.strategy))
    assert any((old != new).any() for old, new in zip(before, agent.policy.actor.parameters(), strict=True))
    # what it met under the new conditions is where it decides from next time
    assert found <= pricer.latency_s(agent.strategy)


def test_adaptation_asks_it(agent: Any) -> None:
    loop = Loop()
    loop.adaptation = Adaptation(BASE, actor=agent, ahead=lambda *_: (), clock=lambda: loop.now)
    loop.run(CHANGED, 6)
    assert loop.adaptation.switches >= 1
    assert loop.share_of_best(CHANGED) >= 0.9


def test_an_actor_for_something_else_is_refused_at_once(agent: Any, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="4 devices, and there are 2"):
        Adaptation(problem(chain(96, 6), (0.3, 0.2), (200.0, 100.0)), actor=agent)
    with pytest.raises(PolicyError, match="not a trained actor"):
        Adaptation(BASE, actor=tmp_path / "none.pt")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTREDGE_CACHE", str(tmp_path / "cache"))
    Path("m.onnx").write_bytes(chain_file(rows=64))


PLAN = ("plan", "m.onnx", "--json", "--cluster")


@pytest.mark.usefixtures("files")
def test_the_command_saves_an_actor_and_asks_it(capsys: pytest.CaptureFixture[str]) -> None:
    train = [*PLAN, "DA-NA", "--policy", "osds", "--budget-s", "7", "--save-actor", "a.pt"]
    assert main(train) == 0
    capsys.readouterr()
    assert main([*PLAN, "DA-NB", "--policy", "osds", "--budget-s", "0.5", "--actor", "a.pt"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["policy"] == "osds"
    assert row["latency_s"] > 0
    assert main([*PLAN, "DA-NB", "--policy", "auto", "--actor", "a.pt"]) == 0
    assert "osds" in json.loads(capsys.readouterr().out)["latencies_s"]


def foreign_actor() -> Any:
    """Of a model that is not in the folder."""
    from policies.osds_agent import Agent

    return Agent("1" * 64, 4, paper=False)


@pytest.mark.usefixtures("files")
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    foreign_actor().save("a.pt")
    osds = ("--policy", "osds")
    for arguments, message in (
        ([*PLAN, "DA-NA", "--save-actor", "b.pt"], "--save-actor is for --policy osds only"),
        (
            [*PLAN, "DA-NA", "--policy", "aofl", "--actor", "a.pt"],
            "--actor is for --policy osds and auto only",
        ),
        ([*PLAN, "DA-NA", *osds, "--actor", "none.pt"], "none.pt: not a trained actor of osds"),
        ([*PLAN, "DA-NA", "--actor", "a.pt"], "the actor was trained for another model"),
        (
            [*PLAN, "DA-NA", *osds, "--save-actor", "b.pt"],
            "nothing was learned in this time, so there is no actor",
        ),
    ):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("distredge: error: ")
        assert captured.err.count("\n") == 1
        assert message in captured.err
    assert not Path("b.pt").exists()
