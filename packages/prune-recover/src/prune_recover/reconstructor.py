"""Distillation as a step of pruning: `reconstruct="distill"`."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.errors import PruneError
from prune_core.masking import unwrap
from prune_core.masking.rewrite import Rewrites
from prune_core.masking.watcher import Watcher
from prune_recover.training import recover
from prune_toolkit import ModelReconstructor
from prune_toolkit.calibration.calibrate import Calibrate
from prune_toolkit.calibration.steps import leaves, rebuilt
from prune_toolkit.running.restore import left_as_it_was, only_run

__all__ = ["Distillation"]


class Distillation(ModelReconstructor):
    """Trains all weights that stay, so that the model returns what the dense one returns.

    The data are those of the calibration, which need no labels. After `"least_squares"` it begins
    where that ends: `reconstruct=["least_squares", "distill"]`. With more data, or with labels,
    make the model small first and call `recover`.

    Args:
        calibrate: Takes the model and runs it on some batches; that of the pruner unless given.
        batches: After how many batches to stop, or None.
        epochs: How often to go through them.
        **options: Further arguments of `recover`, such as `learning_rate` and `hidden`. Outputs are
            compared as numbers, `compare="mse"`, unless it says otherwise.
    """

    def __init__(
        self,
        calibrate: Calibrate | None = None,
        batches: int | None = None,
        epochs: int = 10,
        **options: Any,
    ) -> None:
        super().__init__(calibrate, batches)
        self.epochs, self.options = epochs, {"compare": "mse", **options}

    def apply(self, model: nn.Module, calibrate: Calibrate, rewrites: Rewrites) -> None:
        """Train the model on what `calibrate` runs it on.

        Args:
            model: The model to train.
            calibrate: A function that runs a model on the data.
            rewrites: Notes what is changed, so that it can be undone.
        """
        data = _inputs(model, calibrate)
        with left_as_it_was(model):
            recover(
                model, data, teacher=_dense(model, rewrites), epochs=self.epochs, **self.options
            )
            trained = [(*held, held[2].detach().clone()) for held in _tensors(model)]
        for module, name, now, value in trained:
            if not torch.equal(now, value):
                rewrites.put(module, name, value)


def _dense(model: nn.Module, rewrites: Rewrites) -> nn.Module:
    """Return a copy of the model as it was before it was pruned."""
    copied, made = deepcopy((model, rewrites))
    made.undo()
    return unwrap(copied, apply=False)


def _inputs(model: nn.Module, calibrate: Calibrate) -> list[Any]:
    """Return what a model is called with, in the form of batches without labels."""
    seen: list[Any] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kwargs = {name: value for name, value in kwargs.items() if name != "labels"}
        copies = [
            x.detach().clone() if isinstance(x, Tensor) else x for x in leaves((args, kwargs))
        ]
        args, kwargs = rebuilt((args, kwargs), iter(copies))
        if args and kwargs:
            raise PruneError(
                "The calibration calls the model with positional and with keyword arguments; "
                "distillation needs one of the two."
            )
        seen.append(kwargs or (args, None))

    handle = model.register_forward_pre_hook(Watcher(note, model), with_kwargs=True)
    try:
        with only_run(model), torch.no_grad():
            calibrate(model)
    finally:
        handle.remove()
    if not seen:
        raise PruneError("calibrate(model) does not call the model, so there is nothing to learn.")
    return seen


def _tensors(model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield module, name, parameter
        for name in ("running_mean", "running_var"):
            if isinstance(tensor := module._buffers.get(name), Tensor):
                yield module, name, tensor
