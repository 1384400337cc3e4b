"""New values for the weights of a ticket, to find out which of their properties matter.

Zhou et al., Deconstructing Lottery Tickets, https://arxiv.org/abs/1905.01067
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prune_core.errors import PruneError
from prune_lottery.module_state import plain_modules

__all__ = ["constant", "reinitialise", "reshuffled", "with_signs"]


def with_signs(values: Tensor, signs: Tensor) -> Tensor:
    """Return the magnitudes of one tensor with the signs of another.

    >>> with_signs(torch.tensor([1.0, -2.0]), torch.tensor([-3.0, 4.0]))
    tensor([-1.,  2.])
    """
    return torch.copysign(values, signs)


def constant(initial: Tensor, generator: torch.Generator) -> Tensor:
    """Return the standard deviation of the initial values everywhere, with random signs."""
    heads = torch.randint(0, 2, initial.shape, generator=generator, device="cpu")
    return (heads.to(initial) * 2 - 1) * initial.std(correction=0)


def reshuffled(initial: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Return the initial values, with those that the mask keeps in random order."""
    kept = initial[mask]
    order = torch.randperm(len(kept), generator=generator, device="cpu").to(initial.device)
    shuffled = initial.clone()
    shuffled[mask] = kept[order]
    return shuffled


def reinitialise(model: nn.Module, initialise: Callable[[nn.Module], object] | None) -> None:
    """Give every parameter a new initial value.

    Args:
        model: The model; wrappers in it are passed through.
        initialise: Called with the model, or None for `reset_parameters()` of its modules.

    Raises:
        PruneError: When a module with parameters has no such method; nothing is changed then.
    """
    if initialise is not None:
        initialise(model)
        return
    resets = []
    for name, module in plain_modules(model):
        reset = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
        if callable(reset):
            resets.append(reset)
        elif any(p is not None for p in module._parameters.values()):
            raise PruneError(
                f"{name or 'The model'!r}, a {type(module).__name__}, has parameters and no "
                "reset_parameters(), so it cannot be initialised anew; pass reinitialise=, a "
                "function that takes the model and initialises it."
            )
    for reset in resets:
        reset()
