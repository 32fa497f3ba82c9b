"""`osds`: where to cut the rows, learned by DDPG (Hou et al., IPDPS 2022, DistrEdge).

`policies.osds_agent` holds what learns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import numpy as np

from distredge.errors import PolicyError
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import PartitionScheme, Strategy
from policies.osds_agent import Agent, seeded
from policies.osds_baselines import baseline_strategies, candidate_schemes, fused_starts, lcpss_scheme
from policies.osds_env import SplitEnv
from policies.osds_task import SplitTask, tasks_for
from policies.parts import best_of, pricer_for, with_best_tail

EPISODES = 4000
"""Of the paper's form [R]."""
SIDE_BY_SIDE = 128
"""Episodes at once in the improved form [O]."""
UPDATE_EVERY = {True: 4, False: 128}
"""Steps of the environment per gradient step, in the paper's form and in the improved one [O]."""
HOT, COLD = 0.02, 0.0003
"""Temperature of the incumbents at the start and the end of the improved form's training [O]."""
MIN_TRAINING_S = 5.0
"""With less time than this and no trained actor, nothing is learned [O]."""
SCHEMES = 4
"""Partition schemes that the improved form trains on at first; the best stays from 65 % of the time [O]."""

Progress = Callable[[int, int, float], None]


@dataclass
class OSDS:
    """Optimal split decision search: an actor learns, volume by volume, where to cut the rows.

    Within `PlanningProblem.budget_s` and without a trained actor it learns only if at least five seconds are
    left; with less it answers at once with the best baseline, projected onto the schemes it would have tried
    where that is better (the paper's form: LC-PSS's scheme with the best baseline's rows).

    Attributes:
        as_in_paper: the paper's form on LC-PSS's scheme, whatever it leads to: no baseline helps. Otherwise
            the improved form: dense reward, noise that does not end, actions that change the best split
            known (the best baseline's, at first), the best of a few schemes; never behind a baseline.
        episodes: at most so many; None: 4,000 in the paper's form, no limit in the improved one.
        scheme: cut the depth here, and nowhere else.
        actor: a trained one, or its file: it decides at once, and what is left of the budget fine-tunes it.
        side_by_side: episodes at once in the improved form.
        update_every: steps of the environment per gradient step; None: UPDATE_EVERY. A gradient step takes a
            thousand times as long as a step of the environment.
        progress: called with (episode, episodes, best latency in seconds) while training; without a limit
            `episodes` is an estimate by the clock.
        agent: the trained actor, after `find_strategy`; None if nothing was learned.
        report: of the last `find_strategy`: latency before and after learning, episodes, gradient steps,
            evaluations.
    """

    as_in_paper: bool = False
    episodes: int | None = None
    scheme: PartitionScheme | None = None
    actor: Agent | str | Path | None = None
    side_by_side: int = SIDE_BY_SIDE
    update_every: int | None = None
    progress: Progress | None = None
    name: str = "osds"
    agent: Agent | None = field(default=None, compare=False)
    report: dict[str, float] = field(default_factory=dict, compare=False)

    @property
    def trained(self) -> Agent:
        """The actor that was given, read once.

        Raises:
            PolicyError: none was given, or its file is not one.
        """
        if self.actor is None:
            raise PolicyError("osds has no trained actor; name one", policy=self.name)
        if not isinstance(self.actor, Agent):
            self.actor = Agent.load(self.actor)
        return self.actor

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """The best decision met.

        Raises:
            PolicyError: the model does not fit into memory; or the actor is for another model or number of
                devices.
        """
        deadline = time.perf_counter() + problem.budget_s
        self.agent, self.report = None, {}
        known = baseline_strategies(problem)
        if not self.as_in_paper:
            known.extend(fused_starts(problem))
        if self.actor is not None:
            self.agent = self.trained
            known.insert(0, self.agent.decide(problem))
        tasks = tasks_for(problem, self._schemes(problem, known), known)[:SCHEMES]
        if not tasks:
            if self.scheme is not None:
                raise PolicyError("the model does not fit into memory, cut so", policy=self.name)
            return known[0]
        starts = [task.strategy() for task in tasks]
        if not (self.as_in_paper or self.scheme):
            starts.extend(known)
        before = best_of(problem, (with_best_tail(problem, start) for start in starts))
        self.report["before_s"] = pricer_for(problem).latency_s(before)
        if not self._may_learn(tasks, deadline):
            return before
        if self.agent is None:
            self.agent = Agent(
                problem.graph.digest, len(problem.devices), paper=self.as_in_paper, seed=problem.seed
            )
        with seeded(problem.seed + 1):
            self._learn(self.agent, problem, tasks, deadline)
        met = [with_best_tail(problem, task.strategy()) for task in tasks]
        if not self.as_in_paper or not np.isfinite(tasks[0].latency_s):
            met.append(before)
        best = best_of(problem, met)
        self.agent.strategy = best
        self.report["after_s"] = pricer_for(problem).latency_s(best)
        return best

    def _schemes(self, problem: PlanningProblem, known: list[Strategy]) -> list[PartitionScheme]:
        if self.scheme is not None:
            return [self.scheme]
        if self.as_in_paper:
            return [lcpss_scheme(problem)]
        return candidate_schemes(problem, known)

    def _may_learn(self, tasks: list[SplitTask], deadline: float) -> bool:
        """Whether there is something to decide, and time."""
        if tasks[0].bounds.shape[1] == 2 or max(int(task.rows.max()) for task in tasks) == 1:
            return False
        return self.actor is not None or deadline - time.perf_counter() >= MIN_TRAINING_S

    def _learn(self, agent: Agent, problem: PlanningProblem, tasks: list[SplitTask], deadline: float) -> None:
        begun = time.perf_counter()
        limit: float = inf if self.episodes is None else self.episodes
        if self.as_in_paper:
            limit = min(limit, EPISODES)
            tasks[0].forget()
        env = SplitEnv(
            tasks, 1 if self.as_in_paper else self.side_by_side, problem.seed, paper=self.as_in_paper
        )

        def after(met: int) -> None:
            done = max(met / limit, (time.perf_counter() - begun) / (deadline - begun))
            env.keep_best(max(1, round(len(tasks) * (1 - 1.3 * done))))
            env.temperature = HOT * (COLD / HOT) ** min(1.0, done)
            if self.progress is not None:
                total = int(limit) if limit < inf else max(met, round(met / max(done, 1e-3)))
                self.progress(met, total, min(task.latency_s for task in tasks))

        every = self.update_every or UPDATE_EVERY[self.as_in_paper]
        steps = agent.train(env, episodes=limit, deadline=deadline, update_every=every, after=after)
        agent.roll_out(tasks)
        self.report |= {
            "episodes": env.met,
            "gradient_steps": steps,
            "evaluations": sum(task.evaluations for task in tasks),
        }
