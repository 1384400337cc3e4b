"""Training that moves weights to where pruning does not hurt."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prune_core import ConfigError, PruneError
from prune_core.config import OPTIONAL_KEYS, load_config, parse
from prune_core.evaluators import holds_training
from prune_core.progress import Task
from prune_schedule.evaluation import Finetune, check_callable
from prune_schedule.forms import first_given
from prune_schedule.rounds import tidied
from prune_schedule.snapshot import MasksInForce, Plain, Snapshots, Stateful
from prune_schedule.through import Masks, ThroughPruner, one_shot_class
from prune_schedule.trials import Trials

__all__ = ["ADMMPruner"]

ConfigList = Sequence[Mapping[str, Any]] | str | PathLike[str]
GRANULARITIES = {"fine-grained": "level", "coarse-grained": "l1"}
DEFAULT_RHO = 1e-4


class ADMMPruner(ThroughPruner):
    """Trains weights W towards a sparse copy Z of themselves, and then prunes in one shot.

    In each iteration the loss gets `Σ ρ/2 · ‖W − Z + U‖²` while you train; then
    `Z = Π(W + U)`, where Π zeroes what the one-shot algorithm would prune, and `U = U + W − Z`.

    Zhang et al., A Systematic DNN Weight Pruning Framework using Alternating Direction Method of
    Multipliers, https://arxiv.org/abs/1804.03294

    Args:
        model: The model, wrapped in place. Training changes its weights.
        config_list: The rules; `rho` is the weight ρ of the penalty, 0.0001 unless given.
        trainer: Takes the model and trains it for an epoch; or, as in older releases, model,
            optimizer and criterion, in the order of their names, and then perhaps the epoch. Or an
            evaluator, followed by iterations, training_epochs and granularity.
        traced_optimizer: The optimizer for such a trainer; Adam unless given.
        criterion: The loss function for such a trainer; cross entropy unless given.
        iterations: How often Z and U are renewed.
        training_epochs: How often the trainer is called in between.
        granularity: `"fine-grained"` for `level`, `"coarse-grained"` for `l1`.
        pruning_algorithm: A registered pruner, or a class, instead of a granularity.
        base_algo: The older name of that.
        num_iterations: The older name of `iterations`.
        epochs: The older name of `training_epochs`.
        row: The older name of ρ, for entries without `rho`. With one of these three older names,
            `"l1"` prunes unless another algorithm is given.
        finetune: Takes the model and trains it; the plain form of `trainer`.
        evaluator: Trains the model instead, such as a `prune_filter.TorchEvaluator`; it is called
            once in each iteration, to train for `training_epochs`.
        pruning_params: Further arguments of the pruning algorithm.
        checkpoint: A file from which the same call goes on where it was.
        stateful: What else a checkpoint keeps, by name.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        trainer: Callable[..., Any] | None = None,
        traced_optimizer: Optimizer | None = None,
        criterion: Callable[..., Any] | None = None,
        iterations: int | None = None,
        training_epochs: int | None = None,
        granularity: str = "fine-grained",
        *,
        pruning_algorithm: str | Callable[..., Any] | None = None,
        base_algo: str | None = None,
        num_iterations: int | None = None,
        epochs: int | None = None,
        row: float | None = None,
        finetune: Finetune | None = None,
        evaluator: Any = None,
        pruning_params: Mapping[str, Any] | None = None,
        checkpoint: str | PathLike[str] | None = None,
        stateful: Mapping[str, Stateful] | None = None,
    ) -> None:
        if holds_training(trainer):
            # ADMMPruner(model, config_list, evaluator, 10, 5, 'coarse-grained')
            given: Any = (traced_optimizer, criterion, iterations)
            if isinstance(given[2], str):
                granularity, iterations = given[2], None
            iterations = first_given(given[0], iterations)
            training_epochs = first_given(given[1], training_epochs)
            trainer, evaluator, traced_optimizer, criterion = None, trainer, None, None
        if granularity not in GRANULARITIES:
            raise ConfigError(
                f"granularity is {granularity!r}; it must be one of {', '.join(GRANULARITIES)}."
            )
        check_callable("trainer", trainer, "the model and trains it")
        check_callable("finetune", finetune, "the model and trains it")
        if evaluator is not None and not holds_training(evaluator):
            raise ConfigError(
                f"evaluator is {evaluator!r}, which has no train(); ADMMPruner takes an evaluator "
                "to train with. A function that trains goes into finetune=."
            )
        if sum(given is not None for given in (trainer, finetune, evaluator)) != 1:
            raise ConfigError(
                "ADMMPruner trains the model: give finetune=, a function that takes the model and "
                "trains it for an epoch, or trainer= or evaluator=, its older forms, and not two "
                "of them."
            )
        if traced_optimizer is not None and not isinstance(traced_optimizer, Optimizer):
            raise ConfigError(
                f"traced_optimizer is {traced_optimizer!r}; it must be an optimizer. Give numbers "
                "by their names: num_iterations=, epochs=, row=."
            )
        self.evaluator = evaluator
        self.trainer: Callable[..., Any] = finetune or trainer or evaluator.train
        self._takes_model_alone = trainer is None or _takes_model_alone(trainer)
        self.optimizer, self.criterion = traced_optimizer, criterion
        self.iterations = _at_least_1("iterations", first_given(iterations, num_iterations), 30)
        self.training_epochs = _at_least_1(
            "training_epochs", first_given(training_epochs, epochs), 5
        )
        self.rho = DEFAULT_RHO if row is None else row
        if not self.rho > 0:
            raise ConfigError(f"row is {row!r}; it must be a number above 0.")
        # The release that had these names pruned whole filters unless it was told otherwise.
        older = any(given is not None for given in (num_iterations, epochs, row))
        default = "l1" if older else GRANULARITIES[granularity]
        self.pruning_algorithm = pruning_algorithm or base_algo or default
        self.pruning_params = dict(pruning_params or {})
        self.checkpoint, self.stateful = checkpoint, dict(stateful or {})
        self.reset(model, config_list)

    def reset(self, model: nn.Module, config_list: ConfigList) -> None:
        """Start anew with another model or another config; an old model is unwrapped first."""
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        algorithm = one_shot_class(self.pruning_algorithm)
        entries = parse(config_list, (*getattr(algorithm, "config_keys", ()), OPTIONAL_KEYS["rho"]))
        rho = {entry.index: entry.settings.get("rho", self.rho) for entry in entries}
        plain = [{k: v for k, v in entry.items() if k != "rho"} for entry in config_list]
        self._make_one_shot(algorithm, self.pruning_params, model, plain)
        self.config_list = config_list
        self._rho = {
            name: float(rho[wrapper.config["entry"]])
            for name, wrapper in self.get_modules_wrapper().items()
        }
        self.trials, self._pruned = Trials(), False
        self._z: dict[str, Tensor] = {}
        self._u: dict[str, Tensor] = {}
        # What is masked while it trains: nothing, but for a schedule that has pruned before.
        self._base: Masks = {}

    def compress(self, example_inputs: Any = None) -> tuple[nn.Module, Masks]:
        """Train, prune, and return the wrapped model and the masks.

        Ctrl-C ends the training; the model is then pruned as it is, after at least one iteration.

        Args:
            example_inputs: An input of the model. With it, the masks also cover what comes after
                a masked channel, such as the bias of a normalisation.
        """
        snapshots = self._make_snapshots()
        if not snapshots.restore() and not self._z:
            self._z = {name: weight.detach().clone() for name, weight in self._weights.items()}
            self._u = {name: torch.zeros_like(weight) for name, weight in self._z.items()}
        epochs = f"{self.training_epochs} epoch{'' if self.training_epochs == 1 else 's'}"
        name, each = type(self).__name__, f"of {epochs} each"
        try:
            with Task(name, self.iterations, "iteration", each, announce=True) as task:
                for trial in self.trials:
                    task.advance(f"gap {trial['gap']:.3g}", replayed=True)
                while len(self.trials) < self.iterations:
                    self._iterate(task)
                    if self.checkpoint is not None:
                        snapshots.save()
                    task.advance(f"gap {self.trials[-1]['gap']:.3g}")
        except KeyboardInterrupt:
            if not self.trials:
                raise
        self.one_shot.compress()
        self._pruned = True
        if example_inputs is not None:
            self.close_masks(example_inputs)
        return self.bound_model, self.masks

    def _iterate(self, task: Task) -> None:
        number = len(self.trials)
        times = 1 if self.evaluator is not None else self.training_epochs
        for epoch in range(times):
            task.say(f"training {epoch + 1} of {times}")
            with tidied(self.bound_model), self._penalty():
                self._call_trainer(number * self.training_epochs + epoch)
        with torch.no_grad():
            self._renew()
            gaps = {
                name: float((weight - self._z[name]).norm() / weight.norm().clamp_min(1e-12))
                for name, weight in self._weights.items()
            }
        self.trials.append({"trial": number, "gap": max(gaps.values()), "gaps": gaps})

    @property
    def _weights(self) -> dict[str, nn.Parameter]:
        return {
            name: wrapper.module.get_parameter(wrapper.target)
            for name, wrapper in self.get_modules_wrapper().items()
        }

    @contextmanager
    def _penalty(self) -> Iterator[None]:
        """Add the gradient of the penalty, `ρ · (W − Z + U)`, to that of the loss as it arrives."""

        def penalised(name: str, weight: nn.Parameter) -> Callable[[Tensor], Tensor]:
            rho, z, u = self._rho[name], self._z[name], self._u[name]
            return lambda gradient: gradient + rho * (weight.detach() - z + u)

        handles = [
            weight.register_hook(penalised(name, weight))  # type: ignore[no-untyped-call]
            for name, weight in self._weights.items()
            if weight.requires_grad
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _renew(self) -> None:
        """Set `Z = Π(W + U)` and `U = U + W − Z`."""
        weights = self._weights
        trained = {name: weight.detach().clone() for name, weight in weights.items()}
        try:
            for name, weight in weights.items():
                weight.add_(self._u[name])  # what the one-shot algorithm is to look at
            self.one_shot.compress()
            for name, wrapper in self.get_modules_wrapper().items():
                self._z[name] = wrapper.masked(wrapper.target).detach().clone()
        finally:
            for name, weight in weights.items():
                weight.copy_(trained[name])
            self._no_masks()
        for name, before in trained.items():
            self._u[name] = self._u[name] + before - self._z[name]

    @property
    def _algorithm_name(self) -> str:
        algorithm = self.pruning_algorithm
        return algorithm if isinstance(algorithm, str) else algorithm.__name__

    def _no_masks(self) -> None:
        for wrapper in self.get_modules_wrapper().values():
            for name in wrapper.masked_names:
                wrapper._buffers[f"{name}_mask"] = None
        self.one_shot.load_masks(self._base)

    def _call_trainer(self, epoch: int) -> None:
        if self.evaluator is not None:
            self.evaluator.train(self.bound_model, None, self.training_epochs)
            return
        if self._takes_model_alone:
            self.trainer(self.bound_model)
            return
        both: dict[str, Any] = {
            "optimizer": self.optimizer,
            "criterion": self.criterion or nn.functional.cross_entropy,
        }
        names = _parameters(self.trainer)
        more: dict[str, Any] = {"epoch": epoch, "callback": lambda *_: None}
        known = {name: value for name, value in more.items() if name in names}
        if both.keys() <= names.keys():
            # Trainers of the first releases have the criterion before the optimizer.
            self.trainer(self.bound_model, **both, **known)
        else:
            self.trainer(self.bound_model, *both.values(), **known)

    def get_best_result(
        self,
    ) -> tuple[int, nn.Module, Masks, float | None, list[dict[str, Any]]]:
        """Return number, model, masks, no score, and config of the result."""
        if not self._pruned:
            raise PruneError("There is no result yet: call compress() first.")
        model, masks = self._finished()
        return len(self.trials) - 1, model, masks, None, self.reached_config

    # --- state ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return Z and U and how many iterations have been made."""
        return {"z": dict(self._z), "u": dict(self._u), "trials": json.dumps(self.trials)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state; it must be one of the same layers."""
        weights = self._weights
        for name in ("z", "u"):
            if set(state_dict.get(name, ())) != set(weights):
                raise ConfigError(
                    f"The state has no {name!r} for the layers {', '.join(weights)}; it is not "
                    "what state_dict() of such an ADMMPruner returned."
                )
        self._z = {n: z.to(weights[n].device).clone() for n, z in state_dict["z"].items()}
        self._u = {n: u.to(weights[n].device).clone() for n, u in state_dict["u"].items()}
        self.trials = Trials(json.loads(state_dict["trials"]))

    def _make_snapshots(self) -> Snapshots:
        if self.optimizer is None and not self._takes_model_alone:
            parameters = self.bound_model.parameters()
            self.optimizer = torch.optim.Adam(parameters, lr=1e-3, weight_decay=5e-5)
        parts: dict[str, Stateful] = {"model": Plain(self), "masks": MasksInForce(self)}
        parts["admm"] = self
        if self.optimizer is not None:
            parts["optimizer"] = self.optimizer
        run = {
            "schedule": type(self).__name__,
            "pruning_algorithm": self._algorithm_name,
            "iterations": self.iterations,
            "training_epochs": self.training_epochs,
            "config_list": json.loads(json.dumps(list(self.config_list), default=str)),
        }
        return Snapshots(self.checkpoint, run, {**parts, **self.stateful})


def _at_least_1(name: str, value: Any, default: int) -> int:
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least 1.")
    return value


def _takes_model_alone(trainer: Callable[..., Any]) -> bool:
    """Whether a trainer needs nothing but the model; what else it may take has defaults."""
    parameters = _parameters(trainer)
    needed = [p for p in parameters.values() if p.default is p.empty and p.kind not in _BY_NAME]
    return len(needed) <= 1 and not {"optimizer", "criterion"} <= parameters.keys()


_BY_NAME = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function, none where they cannot be known."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
