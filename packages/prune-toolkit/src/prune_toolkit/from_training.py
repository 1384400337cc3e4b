"""Data for a criterion from the training that goes on anyway, instead of from a calibration.

A gradual schedule prunes in between the steps of a training. Whatever a criterion needs to see,
activations or gradients, has just been computed there: nobody has to run the model once more.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from prune_core.errors import ConfigError, PruneError

if TYPE_CHECKING:
    from prune_core.pruning.pruner import Pruner
    from prune_toolkit.calibrated import CalibratedCollector

__all__ = ["FROM_TRAINING", "follower", "with_data"]

# What a pruner takes that runs the model for it, in the forms of all generations.
_RUNNERS = ("calibrate", "trainer", "evaluator")


class _FromTraining:
    """Stands for a calibration in a pruner whose data come from somebody else's training."""

    def __call__(self, model: nn.Module) -> None:
        raise PruneError(
            "This algorithm runs the model itself, so it cannot take its data from your training. "
            "Give calibrate=, a function that takes the model and runs it on some "
            "batches."
        )

    def __reduce__(self) -> str:
        return "FROM_TRAINING"  # a copy of a pruner has this same object


FROM_TRAINING = _FromTraining()


def with_data(algorithm: Callable[..., Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with which an algorithm gets its data from a training.

    Nothing changes where they say what runs the model, or where the algorithm needs no data: it
    says that it does with `needs_data`, or by a `calibrate` that has to be given.
    """
    if any(params.get(name) is not None for name in _RUNNERS):
        return dict(params)
    try:
        known = inspect.signature(algorithm).parameters
    except (TypeError, ValueError):
        return dict(params)
    calibrate = known.get("calibrate")
    takes = calibrate is not None or any(p.kind is p.VAR_KEYWORD for p in known.values())
    needs = getattr(algorithm, "needs_data", False) and takes
    if needs or (calibrate is not None and calibrate.default is calibrate.empty):
        return {**params, "calibrate": FROM_TRAINING}
    return dict(params)


def follower(pruner: Pruner) -> CalibratedCollector | None:
    """Return what gathers a pruner's data from a training, or None where it needs none.

    Raises:
        ConfigError: When it needs data of a kind that cannot be had there.
    """
    from prune_toolkit.calibrated import CalibratedCollector

    collector = getattr(pruner, "data_collector", None)
    if isinstance(collector, CalibratedCollector):
        return collector if collector.follows else None
    if getattr(pruner, "calibrate", None) is FROM_TRAINING:
        raise ConfigError(
            f"{type(pruner).__name__} cannot get what it needs from the training that goes on. "
            "Give calibrate=, in the form that it asks for."
        )
    return None
