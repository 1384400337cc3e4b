"""AMC: reinforcement learning for the sparsity of each layer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from prune_core import ConfigError
from prune_core.compat import understands
from prune_core.masking import output_axis, weight_name
from prune_schedule.budget.model import ModelBudget
from prune_schedule.compat.positional import AMC
from prune_schedule.run.evaluation import Finetune
from prune_schedule.search.base import ConfigList
from prune_schedule.search.finetuned import FinetunedSearchPruner
from prune_schedule.search.plans import Plan
from prune_schedule.store.snapshot import Stateful
from prune_speedup.search.amc.episodes import (
    AgentParams,
    Episodes,
    Facts,
    agent_params,
    first_of,
    need_agent,
)
from prune_speedup.search.amc.reward import Reward
from prune_speedup.search.rules import goal_of
from prune_speedup.search.user_functions import functions_of
from prune_toolkit.running.random_state import seeded

if TYPE_CHECKING:
    from prune_speedup.search.amc.agent import Agent
    from prune_speedup.search.amc.environment import LayerEnv

__all__ = ["AMCPruner"]


class AMCPruner(FinetunedSearchPruner):
    """Lets a reinforcement-learning agent choose how much of each layer to keep.

    In an episode, the agent goes through the layers. Its state is ten numbers: which layer it is,
    its kind and size, how much has been reduced, how much is left to decide, and the last action.
    The ratio that it chooses is lowered if the budget could not be met otherwise. At the end the
    model is evaluated, and every step gets the reward, less the mean of the previous rewards. The
    agent is DDPG, of stable-baselines3.

    He et al., AMC: AutoML for Model Compression and Acceleration on Mobile Devices,
    https://arxiv.org/abs/1802.03494

    Args:
        model: The model, wrapped in place.
        config_list: The rules, which need not say how much.
        evaluate: Takes the model and returns its score; with a `val_loader`, takes that first. One
            that trains as well, such as `prune_filter.TorchEvaluator`, is also `finetune` unless
            there is another.
        val_loader: What the evaluator gets as well; its first batch is run through the model where
            there is no `dummy_input`.
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
        ddpg_params: How the agent learns and explores, by the names of `AgentParams`; each of them
            is also taken as an argument.
        dummy_input: An input of the model.
        optimize_mode: `"maximize"` or `"minimize"`.
        pruning_algorithm: A registered pruner, or a class.
        finetune: Takes the model and trains it, before each evaluation. The weights go back
            after each episode, and the result has those of the best.
        stateful: What goes back with the weights, by name.
        seed: Of the agent and of all else that is drawn.
        **more: What `AgentParams` has; `checkpoint`, `pruning_params`, `calibrate`, `log_dir`,
            `storage`, `study_name`, `trial_timeout` and `experiment_data_dir`, as for every search.

    Attributes:
        agent: The agent, once the search has begun; `agent.ddpg` is that of stable-baselines3.
    """

    first_tuned: ClassVar[int] = 0
    agent: Agent

    @understands(AMC)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        evaluate: Callable[..., Any] | None = None,
        val_loader: Any = None,
        *,
        flops_ratio: float | None = None,
        target: Mapping[str, float] | str | None = None,
        lbound: float = 0.2,
        rbound: float = 1.0,
        reward: str | Reward = "acc_reward",
        perfect: float = 1.0,
        train_episode: int = 800,
        ddpg_params: Mapping[str, Any] | None = None,
        dummy_input: Any = None,
        optimize_mode: str = "maximize",
        pruning_algorithm: str | Callable[..., Any] = "l1",
        finetune: Finetune | None = None,
        stateful: Mapping[str, Stateful] | None = None,
        pruning_params: Mapping[str, Any] | None = None,
        log_dir: str | PathLike[str] | None = None,
        seed: int = 0,
        **more: Any,
    ) -> None:
        need_agent("prune-schedule[amc]")
        params = dict(ddpg_params or {})
        params |= {name: more.pop(name) for name in AgentParams.__slots__ if name in more}
        self.ddpg_params = agent_params(params)
        self._course = Episodes(train_episode, lbound, rbound, reward, perfect, self.ddpg_params)
        self.episodes, self.lbound, self.rbound = train_episode, lbound, rbound
        self.reward_name, self.perfect = self._course.settings["reward"], perfect
        functions = functions_of(finetune, evaluate, alone=val_loader is None)
        evaluate, dummy_input = functions.evaluate, functions.or_example(dummy_input)
        config_list, goal = goal_of(config_list, target, flops_ratio)
        if val_loader is not None:
            if callable(evaluate):
                evaluate = partial(evaluate, val_loader)
            dummy_input = _first_input(val_loader) if dummy_input is None else dummy_input
        if dummy_input is None:
            raise ConfigError(
                "AMCPruner follows an input through the model to see what each layer costs; give "
                "it one: dummy_input=torch.rand(1, 3, 224, 224)."
            )
        super().__init__(
            model,
            config_list,
            evaluate,
            optimize_mode,
            finetune=functions.finetune,
            stateful=stateful,
            pruning_algorithm=pruning_algorithm,
            pruning_params=pruning_params,
            log_dir=log_dir,
            target=goal,
            dummy_input=dummy_input,
            seed=seed,
            **more,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What the plans depend on."""
        return self._course.settings

    @property
    def length(self) -> int:
        """How many trials there will be: one for each episode."""
        return self.episodes

    def plans(self) -> Generator[Plan, float | None, None]:
        """Yield what each episode comes to; its score is what the agent learns from."""
        best = yield from self._course.walk(
            self.environment(),
            self.seed,
            lambda number: seeded(self._seed_of(number)),
            self._sign,
            self.keep,
            lambda agent: setattr(self, "agent", agent),
        )
        if best is not None and self.finetune is not None:
            self.adopt(1, *best)

    def environment(self) -> LayerEnv:
        """Return the layers as the agent sees them."""
        from prune_speedup.search.amc.environment import LayerEnv

        budget = self._model_budget
        layers = {
            name: _facts(wrapper.module, budget.flops_in(name))
            for name, wrapper in self.get_modules_wrapper().items()
        }
        return LayerEnv(budget, layers, self.caps, self.lbound, self.rbound)

    @property
    def _model_budget(self) -> ModelBudget:
        budget = self.budget
        assert isinstance(budget, ModelBudget)
        return budget


def _facts(layer: Any, flops: int) -> Facts:
    weight = layer.get_parameter(weight_name(layer))
    return Facts(
        linear=not hasattr(layer, "kernel_size"),
        inputs=getattr(layer, "in_channels", None) or getattr(layer, "in_features", None) or 1,
        outputs=weight.shape[output_axis(layer)],
        stride=first_of(getattr(layer, "stride", 0)),
        kernel_size=first_of(getattr(layer, "kernel_size", 1)),
        weights=weight.numel(),
        parameters=sum(parameter.numel() for parameter in layer.parameters()),
        flops=flops,
    )


def _first_input(loader: Any) -> Any:
    """Return the first input of a loader, without drawing from anybody's random numbers."""
    with seeded(0):
        batch = next(iter(loader))
    images = batch[0] if isinstance(batch, list | tuple) else batch
    return images[:1] if isinstance(images, Tensor) else images
