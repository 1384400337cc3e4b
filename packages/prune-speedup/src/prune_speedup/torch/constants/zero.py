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
from prune_speedup.pruning.coupling import Coupling
from prune_speedup.torch.masks import nested_masks, of_tied
from prune_speedup.torch.record.inputs import arguments
from prune_speedup.torch.record.isolation import evaluating, untouched

__all__ = ["CHOICES", "check_choice", "masked_output", "zeroed"]

CHOICES = ("keep", "zero", "fold")

Flat = Mapping[str, torch.Tensor]


def check_choice(constants: str) -> None:
    """Refuse a choice that is none."""
    if constants not in CHOICES:
        raise ConfigError(
            f"constants is {constants!r}; it must be 'keep', which removes only what changes "
            "nothing, 'zero', which also masks what makes a constant of a masked channel, or "
            "'fold', which moves the constant into the next bias."
            f"{did_you_mean(constants, CHOICES)}"
        )


def zeroed(model: nn.Module, example_inputs: Any, masks: Flat) -> dict[str, torch.Tensor]:
    """Close masks over everything that belongs to a channel of which each layer is masked."""
    more = Coupling(model, example_inputs).whole(nested_masks(masks))
    both = {name: masks[name] & mask for name, mask in more.items() if name in masks}
    named = dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers()])
    return of_tied(named, {**masks, **more, **both})


def masked_output(model: nn.Module, example_inputs: Any, masks: Flat) -> Any:
    """What a model returns under its masks as they are given."""
    named = dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers()])
    # A tied tensor is given once: it counts for all of its names.
    once = {id(named[name]): name for name in masks}
    seen = {n: named[n] * masks[n].to(named[n].device) for n in once.values()}
    args, kwargs = arguments(example_inputs)
    with untouched(model), evaluating(model), torch.no_grad():
        return functional_call(model, seen, args, kwargs)
