"""ADMM: training towards sparse weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prune_core import Compressed, ConfigError, PruneError
from prune_core.callables import trainer_function
from prune_core.compat import understands
from prune_core.config import load_config
from prune_core.evaluators import holds_training
from prune_core.masking import Masks
from prune_core.progress import Task
from prune_schedule.compat import positional
from prune_schedule.run.delegating import DelegatingPruner, one_shot_class
from prune_schedule.run.evaluation import Finetune
from prune_schedule.run.isolation import tidied
from prune_schedule.store.snapshot import MasksInForce, Plain, Snapshots, Stateful
from prune_schedule.store.trials import Trials
from prune_speedup.search.admm import (
    ADMM,
    DEFAULT_RHO,
    gap,
    missed,
    rho_of_entries,
)

__all__ = ["ADMMPruner"]

ConfigList = Sequence[Mapping[str, Any]] | str | PathLike[str]


class ADMMPruner(DelegatingPruner):
    """Trains weights W towards a sparse copy Z of themselves, and then prunes in one shot.

    In each iteration the loss gets `Σ ρ/2 · ‖W − Z + U‖²` while you train; then
    `Z = Π(W + U)`, where Π zeroes what the one-shot algorithm would prune, and `U = U + W − Z`.

    Zhang et al., A Systematic DNN Weight Pruning Framework using Alternating Direction Method of
    Multipliers, https://arxiv.org/abs/1804.03294

    Args:
        model: The model, wrapped in place. Training changes its weights.
        config_list: The rules; `rho` is the weight ρ of the penalty, 0.0001 unless given.
        trainer: Takes the model and trains it for an epoch; or, as in older releases, model,
            optimizer, criterion and perhaps the number of the epoch. Arguments under these names
            may come in any order.
        traced_optimizer: The optimizer for such a trainer; Adam unless given.
        criterion: The loss function for the trainer; cross entropy by default.
        iterations: How often Z and U are renewed.
        training_epochs: How often the trainer is called in between.
        granularity: `"fine-grained"` for `level`, `"coarse-grained"` for `l1`.
        pruning_algorithm: A registered pruner, or a class, instead of a granularity.
        row: ρ for entries without `rho`.
        finetune: Takes the model and trains it; the plain form of `trainer`.
        evaluator: Trains the model instead, such as a `prune_filter.TorchEvaluator`; it is called
            once in each iteration, to train for `training_epochs`.
        pruning_params: Further arguments of the pruning algorithm.
        checkpoint: A file from which the same call goes on where it was.
        stateful: What else a checkpoint keeps, by name.
    """

    @understands(positional.ADMM)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        trainer: Callable[..., Any] | None = None,
        traced_optimizer: Optimizer | None = None,
        criterion: Callable[..., Any] | None = None,
        iterations: int = 30,
        training_epochs: int = 5,
        granularity: str = "fine-grained",
        *,
        pruning_algorithm: str | Callable[..., Any] | None = None,
        row: float = DEFAULT_RHO,
        finetune: Finetune | None = None,
        evaluator: Any = None,
        pruning_params: Mapping[str, Any] | None = None,
        checkpoint: str | PathLike[str] | None = None,
        stateful: Mapping[str, Stateful] | None = None,
    ) -> None:
        settings = ADMM(iterations, training_epochs, granularity, row)
        if evaluator is not None and not holds_training(evaluator):
            raise ConfigError(
                f"evaluator is {evaluator!r}, which has no train(); ADMMPruner takes an evaluator "
                "to train with. A function that trains goes into finetune=."
            )
        trainers = {"trainer": trainer, "finetune": finetune}
        if evaluator is not None:
            trainers["evaluator"] = self._train_with_evaluator
        given = [(name, function) for name, function in trainers.items() if function is not None]
        if len(given) != 1:
            raise ConfigError(
                "ADMMPruner trains the model: give finetune=, a function that takes the model and "
                "trains it for an epoch, or trainer= or evaluator= as in NNI; exactly one of "
                "them."
            )
        if traced_optimizer is not None and not isinstance(traced_optimizer, Optimizer):
            raise ConfigError(
                f"traced_optimizer is {traced_optimizer!r}; it must be an optimizer. Give numbers "
                "by their names: iterations=, training_epochs=, row=."
            )
        name, function = given[0]
        self.evaluator, self.trainer = evaluator, trainer_function(function, name)
        self.optimizer, self.criterion = traced_optimizer, criterion
        self.iterations, self.training_epochs = iterations, training_epochs
        self.rho = row
        self.pruning_algorithm = pruning_algorithm or settings.algorithm
        self.pruning_params = dict(pruning_params or {})
        self.checkpoint, self.stateful = checkpoint, dict(stateful or {})
        self.reset(model, config_list)

    def reset(self, model: nn.Module, config_list: ConfigList) -> None:
        """Start over with another model or config; the old model is unwrapped first."""
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        algorithm = one_shot_class(self.pruning_algorithm)
        keys = getattr(algorithm, "config_keys", ())
        plain, rho = rho_of_entries(config_list, keys, self.rho)
        self._make_one_shot(algorithm, self.pruning_params, model, plain)
        self.config_list = config_list
        self._rho = {
            name: rho[wrapper.config["entry"]]
            for name, wrapper in self.get_modules_wrapper().items()
        }
        self.trials, self._pruned = Trials(), False
        self._z: dict[str, Tensor] = {}
        self._u: dict[str, Tensor] = {}
        # What is masked while it trains: nothing, but for a schedule that has pruned before.
        self._base: Masks = {}

    def compress(self, example_inputs: Any = None) -> Compressed[nn.Module, Masks]:
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
        return Compressed(self.bound_model, self.masks)

    def _iterate(self, task: Task) -> None:
        number = len(self.trials)
        times = 1 if self.evaluator is not None else self.training_epochs
        for epoch in range(times):
            task.say(f"training {epoch + 1} of {times}")
            with tidied(self.bound_model), self._penalty():
                self.trainer(
                    self.bound_model,
                    self.optimizer,
                    self.criterion or nn.functional.cross_entropy,
                    number * self.training_epochs + epoch,
                    _nothing,
                )
        with torch.no_grad():
            self._renew()
            gaps = {name: gap(weight, self._z[name]) for name, weight in self._weights.items()}
        self.trials.append({"trial": number, "gap": max(gaps.values()), "gaps": gaps})

    def _train_with_evaluator(self, model: nn.Module) -> None:
        self.evaluator.train(model, None, self.training_epochs)

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
            self._u[name] = missed(self._u[name], before, self._z[name])

    @property
    def _algorithm_name(self) -> str:
        algorithm = self.pruning_algorithm
        return algorithm if isinstance(algorithm, str) else algorithm.__name__

    def _no_masks(self) -> None:
        for wrapper in self.get_modules_wrapper().values():
            for name in wrapper.masked_names:
                wrapper._buffers[f"{name}_mask"] = None
        self.one_shot.load_masks(self._base)

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
        """Return Z, U and the iterations made."""
        return {"z": dict(self._z), "u": dict(self._u), "trials": json.dumps(self.trials)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Resume from a state; it must be that of the same layers.

        Args:
            state_dict: What `state_dict()` returned.
        """
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
        if self.optimizer is None and "optimizer" in self.trainer.takes:
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


def _nothing() -> None:
    """Stand in for the callback of trainers that want one: gradients have the penalty already."""
