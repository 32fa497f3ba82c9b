"""OSDS: both forms under the conformance test, what training does, and what a trained actor is good for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distredge.errors import PolicyError
from distredge.plan.policy import PlanningProblem, Policy
from distredge.plan.strategy import PartitionScheme, Strategy
from policies.osds_baselines import baseline_strategies, lcpss_scheme
from policies.osds_env import DECLINING, SplitEnv
from policies.osds_task import SplitTask, costs_s, projected, tasks_for
from policies.parts import pricer_for
from tests.policies.conformance import PolicyConformance
from tests.policies.problems import branches, chain, problem

pytest.importorskip("tianshou")
osds = pytest.importorskip("policies.osds")
osds_agent = pytest.importorskip("policies.osds_agent")

LONG_S = 600.0


class Trained:
    """OSDS that a budget never ends: few episodes do."""

    name = "osds"

    def __init__(self, **settings: object) -> None:
        self.osds = osds.OSDS(side_by_side=8, **settings)

    def find_strategy(self, asked: PlanningProblem) -> Strategy:
        found: Strategy = self.osds.find_strategy(replace(asked, budget_s=LONG_S))
        return found


class TestWithoutTime(PolicyConformance):
    def policy(self) -> Policy:
        return osds.OSDS()  # type: ignore[no-any-return]


class TestPaperFormWithoutTime(PolicyConformance):
    def policy(self) -> Policy:
        return osds.OSDS(as_in_paper=True)  # type: ignore[no-any-return]


class TestPaperForm(PolicyConformance):
    def policy(self) -> Policy:
        return Trained(as_in_paper=True, episodes=40)


class TestImprovedForm(PolicyConformance):
    def policy(self) -> Policy:
        return Trained(episodes=64)


def latency(asked: PlanningProblem, strategy: Strategy) -> float:
    return pricer_for(asked).latency_s(strategy)


def test_improved_form_beats_what_it_starts_from() -> None:
    asked = problem(chain(rows=64, layers=6), gflops=(0.02, 0.01, 0.005))
    policy = Trained(episodes=1500)
    found = latency(asked, policy.find_strategy(asked))
    assert found <= min(latency(asked, each) for each in baseline_strategies(asked))
    assert found < policy.osds.report["before_s"]
    assert policy.osds.report["after_s"] == pytest.approx(found)


def test_budget_ends_training() -> None:
    asked = problem(chain(), budget_s=5.5)
    policy = osds.OSDS(side_by_side=8)
    seen: list[tuple[int, int, float]] = []
    policy.progress = lambda *at: seen.append(at)
    clock = _Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("policies.osds.time.perf_counter", clock)
        policy.find_strategy(asked)
    assert clock.now < 7.0
    assert seen
    assert seen[-1][0] <= seen[-1][1]
    assert seen[-1][2] <= seen[0][2]


class _Clock:
    """A tenth of a second passes with each look."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 0.1
        return self.now


def test_actor_survives_a_file_and_decides_at_once(tmp_path: Path) -> None:
    asked = problem(chain(rows=64), gflops=(0.02, 0.01, 0.005))
    policy = Trained(episodes=64)
    policy.find_strategy(asked)
    policy.osds.agent.save(tmp_path / "actor.pt")
    agent = osds_agent.Agent.load(tmp_path / "actor.pt")
    assert agent.strategy == policy.osds.agent.strategy
    changed = problem(chain(rows=64), gflops=(0.02, 0.01, 0.005), mbps=(25.0, 100.0, 50.0))
    decided = agent.decide(changed)
    assert decided == policy.osds.agent.decide(changed)
    assert latency(changed, decided) <= latency(changed, agent.strategy)
    tuned = Trained(episodes=64, actor=tmp_path / "actor.pt").find_strategy(changed)
    assert latency(changed, tuned) <= latency(changed, decided)


def test_actor_for_something_else(tmp_path: Path) -> None:
    asked = problem(chain())
    osds_agent.Agent(asked.graph.digest, 3, paper=False).save(tmp_path / "actor.pt")
    with pytest.raises(PolicyError, match="3 devices, and there are 2"):
        osds.OSDS(actor=tmp_path / "actor.pt").find_strategy(problem(chain(), gflops=(1.0, 2.0)))
    osds_agent.Agent("1" * 64, 3, paper=False).save(tmp_path / "actor.pt")
    with pytest.raises(PolicyError, match="another model"):
        osds.OSDS(actor=tmp_path / "actor.pt").find_strategy(asked)
    (tmp_path / "actor.pt").write_bytes(b"nothing")
    with pytest.raises(PolicyError, match="not a trained actor"):
        osds.OSDS(actor=tmp_path / "actor.pt").find_strategy(asked)
    with pytest.raises(PolicyError, match="not a trained actor"):
        osds.OSDS(actor=tmp_path / "none.pt").find_strategy(asked)


def test_given_scheme_is_kept() -> None:
    asked = problem(branches())
    scheme = PartitionScheme(asked.graph.cut_points[2:3])
    assert Trained(episodes=16, scheme=scheme).find_strategy(asked).scheme == scheme
    assert osds.OSDS(scheme=scheme).find_strategy(asked).scheme == scheme


# ---------------------------------------------------------------------- the decision process


def test_paper_form_maps_sorted_actions_to_rows_and_rewards_the_end() -> None:
    asked = problem(chain())
    task = SplitTask(asked, projected(asked, baseline_strategies(asked)[0], lcpss_scheme(asked)))
    task.forget()
    env = SplitEnv([task], 2, 0, paper=True)
    states, _ = env.reset()
    assert states.shape == (2, 3 + 4)
    assert not states[:, :3].any()
    actions = np.array([[0.5, -0.5], [1.0, -1.0]], dtype=np.float32)
    rewards = np.zeros(2)
    for volume in range(task.volumes):
        assert not rewards.any()
        states, rewards, done, _, _ = env.step(actions)
        assert done.all() == (volume == task.volumes - 1)
    assert rewards.max() == pytest.approx(1.0 / task.latency_s)
    alike = [[0, rows // 4, rows - rows // 4, rows] for rows in task.rows]
    if rewards[0] > rewards[1]:
        assert task.best.tolist() == alike
    assert latency(asked, task.strategy()) == pytest.approx(task.latency_s)


def test_improved_rewards_sum_to_what_was_gained() -> None:
    asked = problem(chain(rows=64), gflops=(0.02, 0.01, 0.005))
    (task, *_) = tasks_for(asked, [lcpss_scheme(asked)], baseline_strategies(asked))
    start, unit = task.cost_s, task.latency_s
    env = SplitEnv([task], 8, 0, paper=False, moving=False)
    env.reset()
    total = np.zeros(8)
    one_in_two = [[0, 0], [0.02, 0], [0, 0.02], [-0.02, 0.02]]
    actions = np.repeat(np.array(one_in_two, dtype=np.float32), 2, axis=0)
    for _ in range(task.volumes):
        _, rewards, done, _, _ = env.step(actions)
        total += rewards
    assert done.all()
    costs = costs_s(*task.price(env._bounds[:, : task.volumes]))
    gained = 10.0 * (start - costs) / unit
    going_on = np.arange(8) % DECLINING != 0
    assert total[:2] == pytest.approx([0.0, 0.0])
    assert total[going_on] == pytest.approx(gained[going_on])
    # what it took back still counts against a decision, and no longer against the strategy
    assert (total[~going_on] <= gained[~going_on] + 1e-9).all()
    assert (gained[~going_on] >= -1e-9).all()


def test_noise_of_the_paper_fades() -> None:
    noise = osds_agent.FadingNoise(4)
    assert noise.sigma**2 == pytest.approx(0.1)
    assert osds_agent.FadingNoise(16).sigma ** 2 == pytest.approx(1.0)
    noise.probability = 0.0
    assert not noise((5, 3)).any()
