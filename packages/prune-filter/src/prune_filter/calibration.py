"""How a user's own code runs the model for a pruner, in the forms of all generations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from prune_core import ConfigError
from prune_core.errors import shown
from prune_core.pruning.from_training import FROM_TRAINING
from prune_filter.evaluator import TorchEvaluator

__all__ = ["Calibrate", "Calibration", "calibration", "left_as_it_was"]

Calibrate = Callable[[nn.Module], Any]

# What the arguments of today were called in releases of long ago.
_OLDER_BATCHES = ("sparsifying_training_batches", "statistics_batch_num")
_OLDER = (*_OLDER_BATCHES, "optimizer", "sparsifying_training_epochs")
_EVALUATOR = ("evaluator", "training_steps")


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a pruner needs to see the model at work.

    Attributes:
        run: Runs the given model on some batches; None when the user's own training will.
        batches: How many batches count, or None for all.
        optimizer: The optimizer that `run` steps, where that is known.
    """

    run: Calibrate | None
    batches: int | None = None
    optimizer: Optimizer | None = None

    def for_statistics(self) -> Calibration:
        """Return a calibration that runs the same batches and leaves the model as it was."""
        run = self.run
        if run is None or run is FROM_TRAINING:
            return self

        def run_and_restore(model: nn.Module) -> None:
            with left_as_it_was(model, self.optimizer):
                run(model)

        return replace(self, run=run_and_restore)


def calibration(
    owner: object,
    calibrate: Calibrate | None = None,
    batches: int | None = None,
    *,
    trainer: Callable[..., Any] | None = None,
    traced_optimizer: Any = None,
    criterion: Callable[..., Any] | None = None,
    training_batches: int | None = None,
    training_epochs: int | None = None,
    older: Mapping[str, Any] | None = None,
) -> Calibration:
    """Understand `calibrate=`, or `trainer, traced_optimizer, criterion` as they were before.

    Args:
        owner: The pruner, for messages.
        calibrate: Takes the model and runs it on some batches.
        batches: How many batches count.
        trainer: Takes model, optimizer and criterion, and trains for an epoch.
        traced_optimizer: The optimizer for the trainer; any optimizer of the model will do.
        criterion: The loss function for the trainer.
        training_batches: The same as `batches`.
        training_epochs: How often the trainer is called; once unless given.
        older: Keyword arguments under still older names.

    Raises:
        ConfigError: When something is missing, or given twice.
    """
    name, older = type(owner).__name__, dict(older or {})
    for argument in older:
        if argument not in (*_OLDER, *_EVALUATOR):
            raise TypeError(f"{name}() got an unexpected keyword argument {argument!r}")
    if isinstance(trainer, TorchEvaluator) or "evaluator" in older:
        # NNI 2.9 put the evaluator where the trainer was, and the steps after it.
        steps = traced_optimizer if isinstance(traced_optimizer, int) else None
        return _evaluated(
            name,
            _one(name, evaluator=older.get("evaluator"), trainer=trainer, calibrate=calibrate),
            _one(name, training_steps=older.get("training_steps"), traced_optimizer=steps),
            training_epochs,
        )
    batches = _one(
        name,
        batches=batches,
        training_batches=training_batches,
        **{key: older.get(key) for key in _OLDER_BATCHES},
    )
    epochs = _one(
        name,
        training_epochs=training_epochs,
        sparsifying_training_epochs=older.get("sparsifying_training_epochs"),
    )
    optimizer = _one(name, traced_optimizer=traced_optimizer, optimizer=older.get("optimizer"))
    if calibrate is not None:
        if trainer is not None:
            raise ConfigError(f"{name} got both calibrate and trainer; one runs the model, choose.")
        if not callable(calibrate):
            raise ConfigError(
                f"calibrate is {shown(calibrate)}; it must be a function that takes the model and "
                "runs it on some batches."
            )
        return Calibration(calibrate, batches)
    if trainer is None:
        return Calibration(None, batches)
    if optimizer is None or criterion is None:
        missing = "traced_optimizer" if optimizer is None else "criterion"
        raise ConfigError(
            f"{name} got a trainer and no {missing}; a trainer is called with model, optimizer "
            "and criterion. A function of the model alone goes into calibrate=."
        )

    def run(model: nn.Module) -> None:
        for _ in range(1 if epochs is None else epochs):
            trainer(model, optimizer, criterion)

    return Calibration(run, batches, optimizer if isinstance(optimizer, Optimizer) else None)


def _evaluated(name: str, evaluator: Any, steps: int | None, epochs: int | None) -> Calibration:
    if not isinstance(evaluator, TorchEvaluator):
        raise ConfigError(
            f"{name} got the evaluator {evaluator!r}; it must be a prune_filter.TorchEvaluator. A "
            "function that runs the model goes into calibrate=."
        )
    if steps is None and epochs is None:
        raise ConfigError(
            f"{name} got an evaluator, and neither training_steps= nor training_epochs= to say "
            "for how long it trains."
        )
    optimizer = evaluator.optimizers

    def run(model: nn.Module) -> None:
        evaluator.train(model, steps, epochs)

    return Calibration(run, None, optimizer if isinstance(optimizer, Optimizer) else None)


def _one(owner: str, **values: Any) -> Any:
    given = {name: value for name, value in values.items() if value is not None}
    if len(given) > 1:
        raise ConfigError(f"{owner} got {' and '.join(given)}, which mean the same; give one.")
    return next(iter(given.values()), None)


@contextmanager
def left_as_it_was(model: nn.Module, optimizer: Optimizer | None = None) -> Iterator[None]:
    """Let anything be done with a model, and then put it back.

    Parameters, buffers such as the running statistics of batch norm, gradients, and train or eval
    of each module come back, into the same tensors; so does the state of the optimizer.
    """
    tensors = [*model.parameters(), *model.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    training = [(module, module.training) for module in model.modules()]
    state = None if optimizer is None else deepcopy(optimizer.state_dict())
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for module, flag in training:
            module.training = flag
        if optimizer is not None and state is not None:
            optimizer.load_state_dict(state)
