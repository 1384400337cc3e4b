"""Inputs, as the user gives them, and models that run on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from prune_core.errors import ConfigError, shown

__all__ = ["call_of", "evaluating", "listed", "run"]


def call_of(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments in a tensor, a tuple of positional or a dict of keyword ones."""
    if isinstance(inputs, Mapping):
        return (), {str(name): value for name, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        return tuple(inputs), {}
    return (inputs,), {}


def listed(data: Any) -> list[Any]:
    """Return batches as a list.

    Raises:
        ConfigError: When there are none.
    """
    if isinstance(data, Tensor | Mapping | str) or not isinstance(data, Iterable):
        raise ConfigError(
            f"data is {shown(data) if not isinstance(data, Tensor) else 'a tensor'}; it must be "
            "several batches of inputs, such as [x1, x2], each a tensor, a tuple or a dict."
        )
    batches = list(data)
    if not batches:
        raise ConfigError("data is empty; give it a few batches of real inputs.")
    return batches


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into its evaluation mode for a while, without gradients."""
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def run(model: nn.Module, inputs: Any) -> list[Tensor]:
    """Return all tensors that a model puts out, in its evaluation mode."""
    args, kwargs = call_of(inputs)
    try:
        with evaluating(model):
            output = model(*args, **kwargs)
    except Exception as error:
        labels = " Give inputs without labels." if isinstance(inputs, list | tuple) else ""
        raise ConfigError(
            f"The model does not run on the inputs: {type(error).__name__}: {error}{labels}"
        ) from error
    leaves = tree_leaves(dict(output) if isinstance(output, Mapping) else output)
    return [x for x in leaves if isinstance(x, Tensor) and x.is_floating_point()]
