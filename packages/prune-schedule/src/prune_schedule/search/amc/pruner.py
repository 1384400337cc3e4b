"""AMC: reinforcement learning for the sparsity of each layer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from prune_core import ConfigError, MissingDependencyError
from prune_core.compat import understands
from prune_core.errors import did_you_mean
from prune_schedule.budget.model import ModelBudget
from prune_schedule.compat.positional import AMC
from prune_schedule.run.evaluation import Finetune
from prune_schedule.search.amc.reward import Outcome, Reward, as_reward
from prune_schedule.search.base import ConfigList
from prune_schedule.search.finetuned import FinetunedSearchPruner
from prune_schedule.search.plans import Plan
from prune_schedule.store.snapshot import Stateful
from prune_speedup.search.rules import AMOUNTS
from prune_speedup.search.user_functions import functions_of
from prune_toolkit.running.random_state import seeded

if TYPE_CHECKING:
    from prune_schedule.search.amc.agent import Agent

__all__ = ["AMCPruner"]

AGENT_SEED, EPISODE_SEED, LEARNING_SEED = 600_000, 700_000, 800_000


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
        _need_agent()
        self.lbound, self.rbound = lbound, rbound
        if not 0 < lbound < rbound <= 1:
            raise ConfigError(
                f"lbound is {lbound!r} and rbound is {rbound!r}; a layer keeps a ratio between "
                "them, which are above 0 and at most 1."
            )
        self.perfect = perfect
        self.reward_name = reward if isinstance(reward, str) else _name_of(reward)
        self.reward = as_reward(reward)
        self.episodes = train_episode
        if not isinstance(self.episodes, int) or self.episodes < 1:
            raise ConfigError(
                f"train_episode is {self.episodes!r}; it must be a whole number of at least 1."
            )
        self.ddpg_params = _agent_params(dict(ddpg_params or {}), more)
        functions = functions_of(finetune, evaluate, alone=val_loader is None)
        evaluate, dummy_input = functions.evaluate, functions.or_example(dummy_input)
        config_list, goal = _goal(config_list, target, flops_ratio)
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
        return {
            "episodes": self.episodes,
            "lbound": self.lbound,
            "rbound": self.rbound,
            "reward": self.reward_name,
            "perfect": self.perfect,
            "ddpg_params": asdict(self.ddpg_params),
        }

    @property
    def length(self) -> int:
        """How many trials there will be: one for each episode."""
        return self.episodes

    def plans(self) -> Generator[Plan, float | None, None]:
        """Yield what each episode comes to; its score is what the agent learns from."""
        from prune_schedule.search.amc.agent import Agent
        from prune_schedule.search.amc.environment import LayerEnv

        layers = {name: wrapper.module for name, wrapper in self.get_modules_wrapper().items()}
        env = LayerEnv(self._model_budget, layers, self.caps, self.lbound, self.rbound)
        with seeded(self._seed_of(AGENT_SEED)):
            self.agent: Agent = Agent(env, self.ddpg_params, seed=self.seed)
        best: tuple[float, int, Plan, float] | None = None
        for episode in range(self.episodes):
            # What the agent draws depends on the number of the episode, not on what came before:
            # so an agent that goes through a history learns what it had learnt.
            with seeded(self._seed_of(EPISODE_SEED + episode)):
                steps = self.agent.play(episode)
            plan = dict(env.sparsities)
            score = yield plan
            if score is None:
                continue
            reward = self.reward(self._outcome(plan, score))
            with seeded(self._seed_of(LEARNING_SEED + episode)):
                self.agent.learn(steps, reward, episode)
            if best is None or reward > best[0]:
                best = reward, episode, plan, score
                self.keep(plan, score, episode)
        if best is not None and self.finetune is not None:
            self.adopt(1, *best[1:])

    @property
    def _model_budget(self) -> ModelBudget:
        budget = self.budget
        assert isinstance(budget, ModelBudget)
        return budget

    def _outcome(self, plan: Plan, score: float) -> Outcome:
        budget = self._model_budget
        left = budget.known(plan)
        return Outcome(
            score=score,
            perfect=self._sign * self.perfect,
            flops=round(left["flops"] * budget.dense.flops),
            parameters=round(left["parameters"] * budget.dense.parameters),
        )


def _need_agent() -> None:
    if find_spec("stable_baselines3") is None or find_spec("gymnasium") is None:
        raise MissingDependencyError(
            "The agent of AMCPruner comes from stable-baselines3 and gymnasium: "
            "`pip install 'prune-schedule[amc]'`."
        )


def _name_of(reward: Any) -> str:
    return str(getattr(reward, "__qualname__", type(reward).__name__))


def _agent_params(params: dict[str, Any], more: dict[str, Any]) -> Any:
    """Take what the agent understands out of the further arguments."""
    from prune_schedule.search.amc.agent import AgentParams

    known = AgentParams.__dataclass_fields__
    params |= {name: more.pop(name) for name in known if name in more}
    for name in params:
        if name not in known:
            raise ConfigError(
                f"ddpg_params has {name!r}, which the agent does not know."
                f"{did_you_mean(name, known)} Known: {', '.join(known)}."
            )
    return AgentParams(**params)


def _goal(
    config_list: Any,
    target: Mapping[str, float] | str | None,
    flops_ratio: float | None,
) -> tuple[Any, dict[str, float]]:
    """Return rules that do not say how much, and the target, whoever said what it is."""
    said = [] if flops_ratio is None else [("flops_ratio", flops_ratio)]
    if isinstance(target, Mapping):
        said.append(("target", 0.0))
    amounts = [
        float(entry[key])
        for entry in (config_list if isinstance(config_list, list | tuple) else ())
        if isinstance(entry, Mapping)
        for key in AMOUNTS
        if entry.get(key) and isinstance(entry[key], int | float)
    ]
    if len(said) > 1 or (said and amounts):
        others = [name for name, _ in said[1:]] or ["the sparsity of the rules"]
        raise ConfigError(
            f"{said[0][0]} and {others[0]} both say what may be left; keep one of them."
        )
    if isinstance(target, Mapping):
        return config_list, dict(target)
    kind = {None: "flops", "flops": "flops", "params": "parameters"}.get(target, target)
    if not amounts:
        return config_list, {str(kind): said[0][1] if said else 0.5}
    if len(set(amounts)) > 1:
        raise ConfigError(
            f"The rules say {', '.join(f'{a:g}' for a in amounts)} in different entries; AMC has "
            "one budget for all layers, so say the same in each, or give target=."
        )
    if not 0 < amounts[0] < 1:
        return config_list, {str(kind): 0.5}  # the rules are refused for what they say
    rules = [
        {key: value for key, value in entry.items() if key not in AMOUNTS} for entry in config_list
    ]
    return rules, {str(kind): 1.0 - amounts[0]}


def _first_input(loader: Any) -> Any:
    """Return the first input of a loader, without drawing from anybody's random numbers."""
    with seeded(0):
        batch = next(iter(loader))
    images = batch[0] if isinstance(batch, list | tuple) else batch
    return images[:1] if isinstance(images, Tensor) else images
