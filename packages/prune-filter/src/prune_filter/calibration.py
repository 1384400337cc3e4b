"""How a user's own code runs the model for a pruner, in the forms of all generations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.optim import Optimizer

from prune_core import ConfigError
from prune_core.callables import check_takes_model, trainer_function
from prune_core.errors import shown
from prune_core.evaluators import holds_training
from prune_toolkit.from_training import FROM_TRAINING
from prune_toolkit.running.restore import left_as_it_was

__all__ = ["Calibrate", "Calibration", "calibration"]

Calibrate = Callable[[nn.Module], Any]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a pruner needs to see the model at work.

    Attributes:
        run: Runs the given model on some batches; None when the user's own training will.
        batches: How many batches count, or None for all.
        optimizer: The optimizer that `run` steps, where that is known.
        plain: What runs the model and nothing else, if that was given.
    """

    run: Calibrate | None
    batches: int | None = None
    optimizer: Optimizer | None = None
    plain: Calibrate | None = None

    def for_statistics(self) -> Calibration:
        """Return a calibration that runs the same batches and leaves the model as it was."""
        run = self.run
        if run is None or run is FROM_TRAINING:
            return self

        def run_and_restore(model: nn.Module) -> None:
            with left_as_it_was(model, self.optimizer):
                run(model)

        # The predecessor's forms train with an optimizer; a function of the model only runs it.
        return replace(self, run=run_and_restore, plain=run if self.optimizer is None else None)


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
    evaluator: Any = None,
    training_steps: int | None = None,
) -> Calibration:
    """Understand `calibrate=`, a `trainer` with its optimizer and criterion, or an `evaluator`.

    Args:
        owner: The pruner, for messages.
        calibrate: Takes the model and runs it on some batches.
        batches: How many batches count.
        trainer: Trains for an epoch: `trainer(model, optimizer, criterion)`, perhaps with the
            number of the epoch.
        traced_optimizer: The optimizer for the trainer; any optimizer of the model will do.
        criterion: The loss function for the trainer.
        training_batches: The same as `batches`.
        training_epochs: How often the trainer is called, or for how long the evaluator trains.
        evaluator: Trains the model: a `TorchEvaluator`, or an object like it.
        training_steps: For how many steps it trains.

    Raises:
        ConfigError: When something is missing, or given twice.
    """
    name = type(owner).__name__
    _one(name, evaluator=evaluator, trainer=trainer, calibrate=calibrate)
    batches = _one(name, batches=batches, training_batches=training_batches)
    if evaluator is not None:
        return _evaluated(name, evaluator, training_steps, training_epochs)
    if trainer is not None:
        return _trained(name, trainer, traced_optimizer, criterion, batches, training_epochs)
    check_takes_model("calibrate", calibrate)
    if calibrate is None and batches is None:
        batches = getattr(owner, "watched_batches", None)
    return Calibration(calibrate, batches)


def _trained(
    name: str,
    trainer: Callable[..., Any],
    optimizer: Any,
    criterion: Callable[..., Any] | None,
    batches: int | None,
    epochs: int | None,
) -> Calibration:
    train = trainer_function(trainer)
    for taken, argument, value in (
        ("optimizer", "traced_optimizer", optimizer),
        ("criterion", "criterion", criterion),
    ):
        if taken in train.takes and value is None:
            raise ConfigError(
                f"{name} got a trainer that takes the {taken}, and no {argument}; give it as "
                "well. A function of the model alone goes into calibrate=."
            )

    def run(model: nn.Module) -> None:
        for epoch in range(1 if epochs is None else epochs):
            train(model, optimizer, criterion, epoch, _nothing)

    return Calibration(run, batches, optimizer if isinstance(optimizer, Optimizer) else None)


def _nothing() -> None:
    """Stand in for the callback of trainers that want one."""


def _evaluated(name: str, evaluator: Any, steps: int | None, epochs: int | None) -> Calibration:
    if not holds_training(evaluator):
        raise ConfigError(
            f"{name} got the evaluator {shown(evaluator)}; it must be a "
            "prune_filter.TorchEvaluator, or an object that can be called with a model to score "
            "it and has train(model, max_steps, max_epochs). A function that runs the model goes "
            "into calibrate=."
        )
    if steps is None and epochs is None:
        raise ConfigError(
            f"{name} got an evaluator, and neither training_steps= nor training_epochs= to say "
            "for how long it trains."
        )
    optimizer = getattr(evaluator, "optimizers", None)

    def run(model: nn.Module) -> None:
        evaluator.train(model, steps, epochs)

    return Calibration(run, None, optimizer if isinstance(optimizer, Optimizer) else None)


def _one(owner: str, **values: Any) -> Any:
    """Return what was given under one of several names, or None."""
    given = {name: value for name, value in values.items() if value is not None}
    if len(given) > 1:
        raise ConfigError(f"{owner} got {' and '.join(given)}, which mean the same; give one.")
    return next(iter(given.values()), None)
