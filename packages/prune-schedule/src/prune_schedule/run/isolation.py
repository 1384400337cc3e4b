"""Restore what user functions change in a model: modes, gradients, lent parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from prune_core.masking import PrunerModuleWrapper

__all__ = ["intact", "tidied"]


@contextmanager
def tidied(model: nn.Module) -> Iterator[None]:
    """Let a user's code use a model, then restore train or eval mode and drop gradients.

    A run that starts from a checkpoint finds a model in the mode that it was made in and without
    gradients, so a run that was never stopped has to find the same in each round.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in model.parameters():
            parameter.grad = None


@contextmanager
def intact(model: nn.Module) -> Iterator[None]:
    """Run code that may be interrupted anywhere, also in the forward of a wrapper.

    A forward puts masked weights in the place of parameters and then puts those back. An
    interruption in between, at the wrong moment, leaves the masked ones.
    """
    wrapped = [m.module for m in model.modules() if isinstance(m, PrunerModuleWrapper)]
    kept = [dict(module._parameters) for module in wrapped]
    try:
        yield
    except BaseException:
        for module, parameters in zip(wrapped, kept, strict=True):
            module._parameters.update(parameters)
        raise
