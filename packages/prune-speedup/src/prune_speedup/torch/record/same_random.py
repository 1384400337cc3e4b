"""Let what is random be the same in two models of different widths.

A dropout draws a number for every channel, so a model with fewer channels draws other ones. What a
training model computes is compared with nothing dropped and with noise that is a constant; what is
chosen at random, such as an order, is drawn from the same seed.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from prune_speedup.engine.graph import name_of

__all__ = ["steadily"]

_OFF = {"dropout_p": 0.0, "train": False, "training": False}
"""Arguments by which a random operator is told to do without."""

_NOISE = 0.5


@cache
def _seed() -> Callable[[int], Any]:
    """What seeds all devices that there are.

    `torch.manual_seed` asks for each kind of device, and notes a stack for those that are not
    there: with a dropout in every layer that is a notable part of a forward.
    """
    custom = hasattr(torch, torch._C._get_privateuse1_backend_name())
    if custom or torch.accelerator.is_available():
        return torch.manual_seed
    return torch.default_generator.manual_seed


def steadily(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a random operator so that nothing of its result depends on chance."""
    names = [argument.name for argument in func._schema.arguments]
    args = tuple(_OFF.get(name, arg) for name, arg in zip(names, args, strict=False))
    kwargs = {name: _OFF.get(name, arg) for name, arg in kwargs.items()}
    _seed()(0)
    result = func(*args, **kwargs)
    if _OFF.keys().isdisjoint(names):
        number = 1.0 if name_of(func).startswith("bernoulli") else _NOISE
        for made in result if isinstance(result, list | tuple) else (result,):
            if isinstance(made, torch.Tensor) and made.is_floating_point():
                made.fill_(number)
    return result
