"""What to do with the constants that masked channels leave behind.

A masked convolution gives zeros, and the normalisation after it makes of them what its bias says.
Such a channel cannot be removed without a change, and whoever masked only the convolution has to
say what is meant.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from prune_core.errors import ConfigError, did_you_mean
from prune_core.graph.inputs import arguments
from prune_core.graph.restore import evaluating, untouched
from prune_core.pruning.coupling import Coupling
from prune_core.speedup.masks import nested_masks
from prune_core.speedup.verify import compare

__all__ = ["CHOICES", "check_choice", "zeroed"]

CHOICES = ("keep", "zero")

Flat = Mapping[str, torch.Tensor]


def check_choice(constants: str) -> None:
    """Refuse a choice that is none."""
    if constants not in CHOICES:
        raise ConfigError(
            f"constants is {constants!r}; it must be 'keep', which removes only what changes "
            "nothing, or 'zero', which also masks what makes a constant of a masked channel."
            f"{did_you_mean(constants, CHOICES)}"
        )


def zeroed(
    model: nn.Module, example_inputs: Any, masks: Flat
) -> tuple[dict[str, torch.Tensor], float]:
    """Close masks over the constants that follow.

    Returns:
        The masks, and by how much the masked model's output moved, relative to its largest number.
    """
    more = Coupling(model, example_inputs).closed(nested_masks(masks))
    closed = dict(masks)
    for module, tensors in more.items():
        for name, mask in tensors.items():
            full = f"{module}.{name}" if module else name
            here = mask.cpu()
            closed[full] = closed[full] & here if full in closed else here
    before, after = (_masked_output(model, example_inputs, m) for m in (masks, closed))
    return closed, compare(before, after).relative


def _masked_output(model: nn.Module, example_inputs: Any, masks: Flat) -> Any:
    named = dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers()])
    seen = {name: named[name] * mask.to(named[name].device) for name, mask in masks.items()}
    args, kwargs = arguments(example_inputs)
    with untouched(model), evaluating(model), torch.no_grad():
        return functional_call(model, seen, args, kwargs)
