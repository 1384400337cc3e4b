"""Count the optimizer steps that change weights, also inside wrappers of training libraries.

Accelerate, Lightning and others hand out an object of their own that looks like an optimizer. Its
`step()` may do nothing, while gradients are accumulated; the one inside is stepped when weights
change, and it is the one that tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from prune_core import ConfigError
from prune_core.evaluators import looks_like_optimizer

__all__ = ["on_each_step", "optimizers_in", "telling_optimizer"]

# A wrapper in a wrapper in a wrapper.
DEPTH = 3


def telling_optimizer(given: Any) -> Optimizer:
    """Return the optimizer, in what was given, that calls its hooks with each step.

    Raises:
        ConfigError: When there is none, or more than one.
    """
    found = optimizers_in(given)
    if len(found) == 1:
        return found[0]
    what = f"optimizer is a {type(given).__name__}, in which there are {len(found)} optimizers"
    if not found:
        what = f"optimizer is a {type(given).__name__}, in which there is no torch.optim.Optimizer"
    raise ConfigError(
        f"{what}. Give the torch optimizer whose steps are to be counted; or none, and call "
        "pruner.step() after each step that changes the weights."
    )


def optimizers_in(given: Any) -> list[Optimizer]:
    """Return the torch optimizers in what was given: an optimizer, a wrapper of one, or several."""
    return list({id(optimizer): optimizer for optimizer in _inside(given, DEPTH)}.values())


def _inside(value: Any, depth: int) -> Iterator[Optimizer]:
    # torch gives a class hooks by replacing its step(). A wrapper that only poses as an optimizer
    # takes hooks, and never calls them.
    if isinstance(value, Optimizer) and getattr(type(value).step, "hooked", False):
        yield value
    elif depth:
        inner = (
            value if isinstance(value, list | tuple) else getattr(value, "__dict__", {}).values()
        )
        for part in inner:
            if looks_like_optimizer(part) or (isinstance(part, list | tuple) and len(part) < 99):
                yield from _inside(part, depth - 1)


def on_each_step(given: Any, tell: Callable[[], None]) -> RemovableHandle:
    """Call a function after each step that changed weights.

    A step that a gradient scaler skips, because gradients overflowed, is not made at all; or, by
    optimizers that look at `found_inf` themselves, it is made without an effect.
    """

    def after(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        overflow = getattr(optimizer, "found_inf", None)
        if overflow is None or not bool(overflow):
            tell()

    return telling_optimizer(given).register_step_post_hook(after)
