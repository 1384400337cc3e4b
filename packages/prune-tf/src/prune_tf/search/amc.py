"""AMC: reinforcement learning for the sparsity of each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import keras

from prune_core.config import load_config
from prune_speedup.budget.costs import workload_of_plan
from prune_speedup.engine.plan import make_plan
from prune_speedup.search.amc.episodes import (
    Episodes,
    Facts,
    agent_params,
    first_of,
    need_agent,
)
from prune_speedup.search.amc.reward import Reward
from prune_speedup.search.plans import Plans
from prune_speedup.search.rules import goal_of
from prune_tf.pruning.pruner import ConfigList, Pruner
from prune_tf.pruning.targets import Target
from prune_tf.search.base import MoreOptions, SearchPruner
from prune_tf.search.model_budget import ModelBudget
from prune_tf.search.runner import SIGNS
from prune_tf.seeds import seeded
from prune_tf.speedup.cost import flops_of

if TYPE_CHECKING:
    from prune_speedup.search.amc.agent import Agent
    from prune_speedup.search.amc.environment import LayerEnv

__all__ = ["AMCPruner"]


class AMCPruner(SearchPruner):
    """Lets a reinforcement-learning agent choose how much of each layer to keep.

    In an episode, the agent goes through the layers. Its state is ten numbers: which layer it is,
    its kind and size, how much has been reduced, how much is left to decide, and the last action.
    The ratio that it chooses is lowered if the budget could not be met otherwise. At the end the
    model is evaluated, and every step gets the reward, less the mean of the previous rewards. The
    agent is DDPG, of stable-baselines3, on torch, whatever Keras runs on: `prune-tf[amc]`.

    He et al., AMC: AutoML for Model Compression and Acceleration on Mobile Devices,
    https://arxiv.org/abs/1802.03494

    Args:
        model: The model, masked in place by `compress()`. Nothing but `finetune` changes its
            weights.
        config_list: The rules, which need not say how much.
        evaluate: Takes the model and returns its score.
        flops_ratio: What may be left of the FLOPs; 0.5 unless the rules or a target say more.
        target: What may be left, such as `{"parameters": 0.5}`; or `"flops"` or `"params"`, of
            which the rules' `total_sparsity` is to go.
        lbound: The least ratio that a layer keeps.
        rbound: The largest ratio that a layer keeps.
        reward: `"acc_reward"`, `"acc_flops_reward"`, `"acc_params_reward"`, or a function of an
            `Outcome`.
        perfect: The score of a model without a fault, to tell the error from the score: 1 for an
            accuracy up to 1, 100 for one in per cent.
        train_episode: How many episodes.
        ddpg_params: How the agent learns and explores, by the names of `AgentParams`.
        optimize_mode: `"maximize"` or `"minimize"`.
        pruning_algorithm: A registered pruner, or a class.
        finetune: Takes the model and trains it, before each evaluation. The weights go back after
            each episode, and the result has those of the best.
        experiment_data_dir: A folder for the trials, from which the search goes on.
        **options: `seed=`, `checkpoint=` and what else `SearchPruner` takes.

    Attributes:
        agent: The agent, once the search has begun; `agent.ddpg` is that of stable-baselines3.
        history: The trials: number, sparsity of each layer, and score.
    """

    first_tuned: ClassVar[int | None] = 0
    agent: Agent

    def __init__(
        self,
        model: keras.Model,
        config_list: ConfigList,
        evaluate: Callable[[keras.Model], Any] | None = None,
        *,
        flops_ratio: float | None = None,
        target: Mapping[str, float] | str | None = None,
        lbound: float = 0.2,
        rbound: float = 1.0,
        reward: str | Reward = "acc_reward",
        perfect: float = 1.0,
        train_episode: int = 800,
        ddpg_params: Mapping[str, Any] | None = None,
        optimize_mode: str = "maximize",
        pruning_algorithm: str | type[Pruner] = "l1",
        finetune: Callable[[keras.Model], Any] | None = None,
        experiment_data_dir: str | PathLike[str] | None = None,
        **options: Unpack[MoreOptions],
    ) -> None:
        need_agent("prune-tf[amc]")
        self.ddpg_params = agent_params(ddpg_params or {})
        self._course = Episodes(train_episode, lbound, rbound, reward, perfect, self.ddpg_params)
        self.episodes, self.lbound, self.rbound = train_episode, lbound, rbound
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        config_list, goal = goal_of(config_list, target, flops_ratio)
        super().__init__(
            model,
            config_list,
            evaluate,
            optimize_mode,
            finetune=finetune,
            pruning_algorithm=pruning_algorithm,
            experiment_data_dir=experiment_data_dir,
            target=goal,
            **options,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What the plans depend on."""
        return self._course.settings

    @property
    def length(self) -> int:
        """How many trials there will be: one for each episode."""
        return self.episodes

    def plans(self) -> Plans:
        """Yield what each episode comes to; its score is what the agent learns from."""
        best = yield from self._course.walk(
            self.environment(),
            self.seed,
            lambda number: seeded(self._seed_of(number)),
            SIGNS[self.optimize_mode],
            self.keep,
            lambda agent: setattr(self, "agent", agent),
        )
        if best is not None and self.finetune is not None:
            self.adopt(1, *best)

    def environment(self) -> LayerEnv:
        """Return the layers as the agent sees them."""
        from prune_speedup.search.amc.environment import LayerEnv

        budget, coupling = self.budget, self.pruner.coupling
        assert isinstance(budget, ModelBudget)
        assert coupling is not None
        workload = workload_of_plan(make_plan(coupling.units.labelling, ()))
        flops = dict.fromkeys(self.sizes, 0)
        for operation in workload.operations:
            if operation.layer in flops:
                flops[operation.layer] += flops_of(operation)
        layers = {each.name: _facts(each, flops[each.name]) for each in self.pruner.targets}
        return LayerEnv(budget, layers, self.caps, self.lbound, self.rbound)


def _facts(target: Target, flops: int) -> Facts:
    layer, shape = target.layer, target.shape
    others = [size for axis, size in enumerate(shape[:2]) if axis != target.axis]
    return Facts(
        linear=not hasattr(layer, "kernel_size"),
        inputs=(others[0] if others else 1) * getattr(layer, "groups", 1),
        outputs=shape[target.axis],
        stride=first_of(getattr(layer, "strides", 0)),
        kernel_size=first_of(getattr(layer, "kernel_size", 1)),
        weights=target.alive.size,
        parameters=layer.count_params(),
        flops=flops,
    )
