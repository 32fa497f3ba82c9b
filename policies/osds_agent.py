"""What `osds` learns: an actor and its critic, by DDPG (Hou et al., IPDPS 2022, DistrEdge), on Tianshou.

The only module that imports torch and Tianshou. `policies.osds_env` holds the decision process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import numpy as np
import torch
from gymnasium.spaces import Box
from tianshou.algorithm.algorithm_base import _nstep_return
from tianshou.algorithm.modelfree.ddpg import DDPG, ContinuousDeterministicPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, Collector, CollectStats, VectorReplayBuffer
from tianshou.data.buffer.manager import _next_index, _prev_index
from tianshou.env import BaseVectorEnv
from tianshou.exploration import BaseNoise
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorDeterministic, ContinuousCritic
from tianshou.utils.torch_utils import policy_within_training_step

from distredge.errors import PolicyError
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from policies.osds_baselines import QUICK, baseline_strategies, lcpss_scheme
from policies.osds_env import DECLINING, SplitEnv
from policies.osds_task import Floats, SplitTask, tasks_for
from policies.parts import best_of

ACTOR, CRITIC = (400, 200, 100), (400, 200, 100, 100)
"""Hidden layers [R: the paper's]."""
ACTOR_RATE, CRITIC_RATE = 1e-4, 1e-3
"""Learning rates [R]."""
GAMMA, BATCH = 0.99, 64
"""Discount, and transitions per gradient step [R]."""
FADES_AT = 250
"""Episode from which the paper's form explores no more [R]; before, with chance 1 - (episode / 250)^2."""
ACTOR_SHARE = 0.25
"""Of the episodes side by side in the improved form, how many follow the actor (and noise) [O]."""

# Tianshou compiles these anew in every process, which takes longer than many a training.
for _function in (_nstep_return, _prev_index, _next_index):
    with suppress(Exception):  # without a folder to write to it works all the same
        _function.enable_caching()


class FadingNoise(BaseNoise):
    """Gaussian, added to a step with a probability that the training lowers [R].

    Args:
        devices: variance 0.1 for 4 devices and 1 for 16 [R]; a power law through the two for others [O].
    """

    def __init__(self, devices: int) -> None:
        self.sigma = float(np.sqrt(0.1 * (devices / 4) ** (np.log(10) / np.log(4))))
        self.probability = 1.0

    def reset(self) -> None:
        """Back to full exploration."""
        self.probability = 1.0

    def __call__(self, size: Sequence[int]) -> Floats:
        """Noise of that shape, for all numbers of a decision or for none."""
        noise = np.random.normal(0.0, self.sigma, size)
        drawn: Floats = np.where(np.random.random((size[0], 1)) < self.probability, noise, 0.0)
        return drawn


class LastingNoise(BaseNoise):
    """Gaussian of every size from one hundredth to a half, on some decisions and some of their cuts [O].

    It does not end. Most decisions keep most cuts, because one can only be told good from bad when few
    others change with it; but most change where the environment takes bad ones back. Half of the time an
    episode goes on with the noise of its last decision: a cut that moves in one volume alone makes devices
    exchange rows, one that moves in several does not.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets the noise that was held."""
        self._last = np.zeros((0, 0))

    def __call__(self, size: Sequence[int]) -> Floats:
        """Noise of that shape, in part that of the last call."""
        sigma = 10.0 ** np.random.uniform(-2.2, -0.3, (size[0], 1))
        drawn = np.random.normal(0.0, 1.0, size) * sigma * (np.random.random(size) < 0.5)
        often = np.where(np.arange(size[0]) % DECLINING == 0, 0.8, 0.3)[:, None]
        drawn *= np.random.random((size[0], 1)) < often
        if self._last.shape == drawn.shape:
            drawn = np.where(np.random.random((size[0], 1)) < 0.5, self._last, drawn)
        self._last = drawn
        return drawn


class ResidualPolicy(ContinuousDeterministicPolicy):
    """Explores around the incumbent as well as around the actor: most episodes drop the actor's actions [O].

    Without this a half-trained actor moves every volume of every episode away from the best split known, and
    nothing near it is met any more.
    """

    def add_exploration_noise(self, act: Floats, batch: Batch) -> Floats:  # type: ignore[override]
        """Moves the actor's actions, or, for most episodes, moves from no change at all."""
        kept = (np.arange(len(act)) < ACTOR_SHARE * len(act))[:, None]
        noise = LastingNoise() if self.exploration_noise is None else self.exploration_noise
        moved: Floats = np.clip(act * kept + noise(act.shape), -1.0, 1.0)
        return moved


class Agent:
    """An actor and its critic for one model and one number of devices.

    Attributes:
        digest: of the graph it was trained for.
        devices: how many.
        paper: whether its actions are whole decisions (the paper's form), not changes to an incumbent.
        strategy: the best met in training, None before.
    """

    def __init__(self, digest: str, devices: int, *, paper: bool, seed: int = 0) -> None:
        self.digest, self.devices, self.paper = digest, devices, paper
        self.strategy: Strategy | None = None
        states, actions = SplitEnv.state_size(devices, paper), devices - 1
        with seeded(seed):
            net = Net(state_shape=(states,), hidden_sizes=ACTOR)
            actor = ContinuousActorDeterministic(preprocess_net=net, action_shape=(actions,))
            if not paper:
                # An action of 0 is the incumbent: that is where the improved form starts.
                for parameter in actor.last.parameters():
                    parameter.data.mul_(0.01)
            both = Net(state_shape=(states + actions,), hidden_sizes=CRITIC)
            critic = ContinuousCritic(preprocess_net=both)
        kind = ContinuousDeterministicPolicy if paper else ResidualPolicy
        self.policy = kind(
            actor=actor,
            exploration_noise=FadingNoise(devices) if paper else LastingNoise(),
            action_space=_space(devices),
            action_scaling=False,
        )
        self.algorithm = DDPG(
            policy=self.policy,
            policy_optim=AdamOptimizerFactory(lr=ACTOR_RATE),
            critic=critic,
            critic_optim=AdamOptimizerFactory(lr=CRITIC_RATE),
            gamma=GAMMA,
        )

    def save(self, path: str | Path) -> None:
        """Writes weights and the best strategy met; `load` reads nothing but numbers and names."""
        kept = self.strategy
        torch.save(
            {
                "format": 1,
                "digest": self.digest,
                "devices": self.devices,
                "paper": self.paper,
                "cuts": list(kept.scheme.cuts) if kept else [],
                "bounds": [list(split.bounds) for split in kept.splits] if kept else [],
                "tail": -1 if kept is None or kept.tail_device is None else kept.tail_device,
                "actor": self.policy.actor.state_dict(),
                "critic": self.algorithm.critic.state_dict(),
            },
            path,
        )

    @classmethod
    def load(cls, path: str | Path) -> Agent:
        """A saved agent.

        Raises:
            PolicyError: the file cannot be read, or is not one.
        """
        try:
            kept = torch.load(path, weights_only=True)
            agent = cls(kept["digest"], kept["devices"], paper=kept["paper"])
            agent.policy.actor.load_state_dict(kept["actor"])
            agent.algorithm.critic.load_state_dict(kept["critic"])
            agent.algorithm.actor_old.module.load_state_dict(kept["actor"])
            agent.algorithm.critic_old.module.load_state_dict(kept["critic"])
            splits = tuple(SplitDecision(tuple(bounds)) for bounds in kept["bounds"])
            tail = None if kept["tail"] < 0 else kept["tail"]
        except Exception as error:  # torch raises many kinds for a file that is not its own
            raise PolicyError(
                f"{path}: not a trained actor of osds ({str(error).splitlines()[0]}); "
                "name a file that `Agent.save` wrote",
                path=str(path),
            ) from error
        if splits:
            agent.strategy = Strategy(PartitionScheme(tuple(kept["cuts"])), splits, tail)
        return agent

    def check(self, problem: PlanningProblem) -> None:
        """Raises PolicyError unless it was trained for this model and this number of devices."""
        if self.digest != problem.graph.digest:
            raise PolicyError(
                f"the actor was trained for another model ({self.digest[:12]}, not "
                f"{problem.graph.digest[:12]}); train one for this model",
                policy="osds",
            )
        if self.devices != len(problem.devices):
            raise PolicyError(
                f"the actor was trained for {self.devices} devices, and there are {len(problem.devices)}; "
                "train one for so many",
                policy="osds",
            )

    def decide(self, problem: PlanningProblem) -> Strategy:
        """What the actor decides at once, in milliseconds: the best of its decisions from what it met in
        training and from quick baselines, and of these themselves.

        Raises:
            PolicyError: it was trained for something else, or the model does not fit into memory.
        """
        self.check(problem)
        known = baseline_strategies(problem, QUICK)
        if self.strategy is not None:
            known.insert(0, self.strategy)
        schemes = [strategy.scheme for strategy in known[:2]] if self.strategy else [lcpss_scheme(problem)]
        tasks = tasks_for(problem, schemes, known)
        self.roll_out(tasks)
        return best_of(problem, [*(task.strategy() for task in tasks), *known])

    def roll_out(self, tasks: Sequence[SplitTask]) -> None:
        """One episode of each task, without noise; what is better than a task's incumbent becomes it."""
        if not tasks:
            return
        env = SplitEnv(tasks, len(tasks), 0, paper=self.paper, pinned=True)
        states, _ = env.reset()
        ids = np.arange(len(tasks))
        with torch.no_grad():
            while len(ids):
                actions = self.policy(Batch(obs=states, info=Batch())).act.numpy()
                states, _, done, _, _ = env.step(actions, ids)
                ids, states = ids[~done], states[~done]

    def train(
        self,
        env: SplitEnv,
        *,
        episodes: float,
        deadline: float,
        update_every: int = 4,
        after: Callable[[int], None] = lambda met: None,
    ) -> int:
        """Learns on an environment until there were so many episodes, or `time.perf_counter` says so.

        Args:
            env: where.
            episodes: how many at most.
            deadline: when to stop at the latest.
            update_every: steps of the environment per gradient step.
            after: called with the number of episodes met, now and then.

        Returns:
            Gradient steps made.
        """
        buffer = VectorReplayBuffer(60_000, len(env))
        collector: Collector[CollectStats] = Collector(
            self.policy,
            cast(BaseVectorEnv, env),  # it has all of its methods that the collector calls
            buffer,
            exploration_noise=True,
            raise_on_nan_in_buffer=False,
        )
        collector.reset()
        noise, steps, owed = self.policy.exploration_noise, 0, 0.0
        with policy_within_training_step(self.policy):
            while env.met < episodes and time.perf_counter() < deadline:
                if isinstance(noise, FadingNoise):
                    noise.probability = max(0.0, 1.0 - (env.met / FADES_AT) ** 2)
                taken = len(env) if len(env) > 1 else update_every
                collector.collect(n_step=taken)
                owed += taken / update_every
                while owed >= 1 and len(buffer) >= BATCH and time.perf_counter() < deadline:
                    self.algorithm.update(buffer, BATCH)
                    owed -= 1
                    steps += 1
                after(env.met)
        return steps


def _space(devices: int) -> Box:
    return Box(-1.0, 1.0, (devices - 1,), np.float32)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds what torch and Tianshou draw from, on one thread, and puts everything back."""
    torch_state, numpy_state, threads = torch.get_rng_state(), np.random.get_state(), torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)
        torch.set_num_threads(threads)
