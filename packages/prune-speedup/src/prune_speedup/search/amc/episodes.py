"""AMC's walk among plans: each is what the agent did in an episode, whose score it learns from."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from prune_core.errors import ConfigError, MissingDependencyError, did_you_mean
from prune_speedup.search.amc.reward import Outcome, Reward, as_reward
from prune_speedup.search.planned import PlannedBudget
from prune_speedup.search.plans import Plan

if TYPE_CHECKING:
    from prune_speedup.search.amc.agent import Agent
    from prune_speedup.search.amc.environment import LayerEnv

__all__ = [
    "AgentParams",
    "Best",
    "Episodes",
    "Facts",
    "agent_params",
    "first_of",
    "need_agent",
]

AGENT_SEED, EPISODE_SEED, LEARNING_SEED = 600_000, 700_000, 800_000

Best = tuple[int, Plan, float]
"""The number of an episode, its plan and its score."""


@dataclass(frozen=True, slots=True)
class AgentParams:
    """How the agent learns and explores.

    Attributes:
        hidden1: Units of the first hidden layer of actor and critic.
        hidden2: Units of the second.
        lr_a: Learning rate of the actor.
        lr_c: Learning rate of the critic.
        warmup: For how many episodes actions are drawn uniformly, and nothing is learnt.
        discount: What a reward one layer later is worth.
        bsize: Steps in a batch.
        rmsize: How many episodes are remembered.
        tau: How fast the target networks follow.
        init_delta: Standard deviation of the noise on actions after the warm-up.
        delta_decay: By what it is multiplied with each episode.
        baseline_decay: How fast the mean of rewards, which is taken off each, forgets.
    """

    hidden1: int = 300
    hidden2: int = 300
    lr_a: float = 1e-4
    lr_c: float = 1e-3
    warmup: int = 100
    discount: float = 1.0
    bsize: int = 64
    rmsize: int = 100
    tau: float = 0.01
    init_delta: float = 0.5
    delta_decay: float = 0.99
    baseline_decay: float = 0.95


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a layer before anything is pruned.

    Attributes:
        linear: Whether it is no convolution.
        inputs: How many channels it reads.
        outputs: How many channels it makes.
        stride: Its first stride, 0 where it has none.
        kernel_size: The first size of its kernel, 1 where it has none.
        weights: How many weights are pruned.
        parameters: How many parameters it has.
        flops: What it does for the example.
    """

    linear: bool
    inputs: int
    outputs: int
    stride: int
    kernel_size: int
    weights: int
    parameters: int
    flops: int


@dataclass(frozen=True, slots=True)
class Episodes:
    """What the agent may do and is paid, and for how long it learns.

    Attributes:
        count: How many episodes.
        lbound: The least ratio that a layer keeps.
        rbound: The largest ratio that a layer keeps.
        reward: The name of a reward, or a function of an `Outcome`.
        perfect: The score of a model without a fault.
        ddpg_params: How the agent learns and explores.

    Raises:
        ConfigError: One of them is out of its range.
    """

    count: int = 800
    lbound: float = 0.2
    rbound: float = 1.0
    reward: str | Reward = "acc_reward"
    perfect: float = 1.0
    ddpg_params: AgentParams = AgentParams()

    def __post_init__(self) -> None:
        if not 0 < self.lbound < self.rbound <= 1:
            raise ConfigError(
                f"lbound is {self.lbound!r} and rbound is {self.rbound!r}; a layer keeps a ratio "
                "between them, which are above 0 and at most 1."
            )
        as_reward(self.reward)
        if not isinstance(self.count, int) or self.count < 1:
            raise ConfigError(
                f"train_episode is {self.count!r}; it must be a whole number of at least 1."
            )

    @property
    def settings(self) -> dict[str, Any]:
        """The same as plain data."""
        reward = self.reward
        name = reward if isinstance(reward, str) else getattr(reward, "__qualname__", None)
        return {
            "episodes": self.count,
            "lbound": self.lbound,
            "rbound": self.rbound,
            "reward": str(name or type(reward).__name__),
            "perfect": self.perfect,
            "ddpg_params": asdict(self.ddpg_params),
        }

    def walk(
        self,
        env: LayerEnv,
        seed: int,
        drawing: Callable[[int], AbstractContextManager[None]],
        sign: float,
        keep: Callable[[Plan, float, int], object],
        met: Callable[[Agent], object],
    ) -> Generator[Plan, float | None, Best | None]:
        """Yield what each episode comes to, be sent its score, and return the best.

        Args:
            env: The layers.
            seed: Of the agent's networks.
            drawing: Takes a number, and lets a block draw what depends on that and on the seed.
            sign: -1 where less is better; scores are sent so that more is.
            keep: Called with each plan that is the best so far, its score and its number.
            met: Called with the agent, before the first episode.
        """
        from prune_speedup.search.amc.agent import Agent

        reward = as_reward(self.reward)
        with drawing(AGENT_SEED):
            agent = Agent(env, self.ddpg_params, seed)
        met(agent)
        best: tuple[float, Best] | None = None
        for episode in range(self.count):
            # What the agent draws depends on the number of the episode, not on what came before:
            # so an agent that goes through a history learns what it had learnt.
            with drawing(EPISODE_SEED + episode):
                steps = agent.play(episode)
            plan = dict(env.sparsities)
            score = yield plan
            if score is None:
                continue
            paid = reward(_outcome(env.budget, plan, score, sign * self.perfect))
            with drawing(LEARNING_SEED + episode):
                agent.learn(steps, paid, episode)
            if best is None or paid > best[0]:
                best = paid, (episode, plan, score)
                keep(plan, score, episode)
        return None if best is None else best[1]


def _outcome(budget: PlannedBudget, plan: Plan, score: float, perfect: float) -> Outcome:
    left = budget.known(plan)
    return Outcome(
        score=score,
        perfect=perfect,
        flops=round(left["flops"] * budget.dense.flops),
        parameters=round(left["parameters"] * budget.dense.parameters),
    )


def first_of(size: Any) -> int:
    """Return the first of several sizes, or the only one."""
    return int(size[0] if isinstance(size, tuple | list) else size)


def need_agent(extra: str) -> None:
    """Say what to install where the agent is missing.

    Args:
        extra: The package that brings it, with its extra.
    """
    if find_spec("stable_baselines3") is None or find_spec("gymnasium") is None:
        raise MissingDependencyError(
            "The agent of AMCPruner comes from stable-baselines3, which needs torch, and "
            f"gymnasium: `pip install '{extra}'`."
        )


def agent_params(params: Mapping[str, Any]) -> AgentParams:
    """Return what the agent understands.

    Raises:
        ConfigError: When there is something that it does not.
    """
    known = AgentParams.__dataclass_fields__
    for name in params:
        if name not in known:
            raise ConfigError(
                f"ddpg_params has {name!r}, which the agent does not know."
                f"{did_you_mean(name, known)} Known: {', '.join(known)}."
            )
    return AgentParams(**params)
