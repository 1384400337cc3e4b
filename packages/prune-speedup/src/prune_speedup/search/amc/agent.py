"""AMC's agent: DDPG as stable-baselines3 has it, with AMC's way to explore."""

from __future__ import annotations

import random
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from stable_baselines3 import DDPG
from stable_baselines3.common.logger import Logger

from prune_speedup.search.amc.environment import LayerEnv, Observation
from prune_speedup.search.amc.episodes import AgentParams

__all__ = ["Agent", "Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """One layer of an episode: what was seen, what it kept, and what was seen then."""

    before: Observation
    kept: float
    after: Observation
    done: bool


class _TwoRates(DDPG):
    """DDPG whose actor and critic learn at different rates, as AMC's do."""

    rates: tuple[float, ...]

    def _update_learning_rate(
        self, optimizers: list[torch.optim.Optimizer] | torch.optim.Optimizer
    ) -> None:
        listed = optimizers if isinstance(optimizers, list) else [optimizers]
        for optimizer, rate in zip(listed, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate


class Agent:
    """Plays episodes, and learns from what they were worth.

    Args:
        env: The layers.
        params: How it learns and explores.
        seed: Of its networks.
    """

    def __init__(self, env: LayerEnv, params: AgentParams, seed: int) -> None:
        self.env, self.params = env, params
        self.ddpg = _TwoRates(
            "MlpPolicy",
            env,
            learning_rate=params.lr_c,
            buffer_size=params.rmsize * len(env.budget.groups),
            batch_size=params.bsize,
            tau=params.tau,
            gamma=params.discount,
            policy_kwargs={"net_arch": [params.hidden1, params.hidden2]},
            seed=seed % 2**32,  # what numpy takes
            device="cpu",
        )
        self.ddpg.rates = (params.lr_a, params.lr_c)
        self.ddpg.set_logger(Logger(None, []))
        self._baseline: float | None = None

    def play(self, episode: int) -> list[Step]:
        """Go through the layers once; the environment has the sparsities then."""
        steps = []
        before, _ = self.env.reset()
        done = False
        while not done:
            action = np.array([self._explore(before, episode)], np.float32)
            after, _, done, _, info = self.env.step(action)
            steps.append(Step(before, info["kept"], after, done))
            before = after
        return steps

    def _explore(self, observation: Observation, episode: int) -> float:
        """Draw an action: uniformly at first, then around what the actor says."""
        low, high = float(self.env.action_space.low[0]), float(self.env.action_space.high[0])  # type: ignore[attr-defined]
        if episode < self.params.warmup:
            return random.uniform(low, high)
        action, _ = self.ddpg.predict(observation, deterministic=True)
        age = episode - self.params.warmup
        delta = self.params.init_delta * self.params.delta_decay**age
        if delta < 1e-6:
            return float(action[0])
        # A normal distribution that ends at the bounds.
        around = NormalDist(float(action[0]), delta)
        place = random.uniform(around.cdf(low), around.cdf(high))
        return min(max(around.inv_cdf(min(max(place, 1e-12), 1 - 1e-12)), low), high)

    def learn(self, steps: list[Step], reward: float, episode: int) -> None:
        """Remember an episode, each step of which was worth the same, and train."""
        advantage = reward - (reward if self._baseline is None else self._baseline)
        decay = self.params.baseline_decay
        old = reward if self._baseline is None else self._baseline
        self._baseline = decay * old + (1 - decay) * reward
        memory = self.ddpg.replay_buffer
        assert memory is not None
        for step in steps:
            action = self.ddpg.policy.scale_action(np.array([[step.kept]], np.float32))
            done = np.array([step.done])
            infos: list[dict[str, Any]] = [{}]
            memory.add(step.before, step.after, action, np.array([advantage]), done, infos)
        if episode >= self.params.warmup:
            self.ddpg.train(gradient_steps=len(steps), batch_size=self.params.bsize)
