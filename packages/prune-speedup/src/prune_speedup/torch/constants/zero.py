"""What to do with the constants that masked channels leave behind.

A masked convolution gives zeros, and the normalisation after it makes of them what its bias says.
Such a channel cannot simply be left out, and whoever masked only the convolution has to say what is
meant.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from prune_core.errors import ConfigError, did_you_mean
from prune_speedup.engine.mask_effects import Standing, standing
from prune_speedup.engine.plan import Flags
from prune_speedup.engine.units import read_units
from prune_speedup.pruning.coupling import Coupling
from prune_speedup.torch.analysis import analysis_of
from prune_speedup.torch.constants.fold import fold
from prune_speedup.torch.masks import asked_for, nested_masks, of_tied, zeros_of
from prune_speedup.torch.record.inputs import arguments
from prune_speedup.torch.record.isolation import untouched
from prune_toolkit.running.restore import evaluating

__all__ = ["CHOICES", "Settled", "check_choice", "masked_output", "settle"]

CHOICES = ("exact", "keep", "fold", "zero", "remove")

Flat = Mapping[str, Tensor]


def check_choice(constants: str) -> None:
    """Refuse a choice that is none."""
    if constants not in CHOICES:
        raise ConfigError(
            f"constants is {constants!r}; it must be 'exact', which moves a constant into the next "
            "bias where that changes nothing, 'keep', which moves none, 'fold', which moves more, "
            "'zero', which also masks what makes a constant of a masked channel, or 'remove', "
            f"which folds what it can and takes out the rest.{did_you_mean(constants, CHOICES)}"
        )


class Settled(NamedTuple):
    """What became of constants.

    Attributes:
        masks: The masks as they are now.
        as_given: What the model returned under the masks as they were given.
    """

    masks: dict[str, Tensor]
    as_given: Any


def settle(
    model: nn.Module, example_inputs: Any, found: Standing, masks: Flat, constants: str
) -> Settled | None:
    """Close masks over what makes constants, as was chosen, or move those into biases.

    Args:
        model: What is masked; where constants are moved, its biases change.
        example_inputs: What it is run with.
        found: What its masks leave of its units.
        masks: `{tensor name: bool mask}`.
        constants: One of `CHOICES`.

    Returns:
        What was done, or `None` where nothing had to be.
    """
    if constants == "keep":
        return None
    if constants == "zero":
        coupling = Coupling(model, found=read_units(found.labelling))
        more = coupling.whole(nested_masks(masks))
        as_given = masked_output(model, example_inputs, masks) if more else None
        return Settled(_with(model, masks, more), as_given) if more else None
    if not found.constants.any():
        return None
    folding = fold(model, example_inputs, found, masks, exactly=constants == "exact")
    removing = constants == "remove" and _asked_constants(model, found, masks).any()
    if folding is None and not removing:
        return None
    as_given = masked_output(model, example_inputs, masks)
    now = dict(masks)
    if folding is not None:
        now = folding.masks
        folding.apply()
    if removing:
        now = _without_constants(model, example_inputs, now)
    return Settled(now, as_given)


def _without_constants(model: nn.Module, example_inputs: Any, masks: Flat) -> dict[str, Tensor]:
    """Masks that also cover all that belongs to a channel of which a constant is left."""
    labelling = analysis_of(model, example_inputs).labelling
    found = standing(labelling, zeros_of(model, labelling.graph, masks))
    left = np.flatnonzero(_asked_constants(model, found, masks))
    coupling = Coupling(model, found=read_units(labelling))
    return _with(model, masks, coupling.every_slice(left))


def _asked_constants(model: nn.Module, found: Standing, masks: Flat) -> Flags:
    """The labels of which a constant is left, if masks cover anything of them."""
    labelling = found.labelling
    graph, asked = labelling.graph, np.zeros(len(found.roots), dtype=np.bool_)
    for (value, axis), zero in asked_for(graph, zeros_of(model, graph, masks), masks).items():
        if (column := labelling.axes[value][axis]) is not None:
            asked[found.roots[column[zero]]] = True
    constants: Flags = found.constants & asked[found.roots]
    return constants


def _with(model: nn.Module, masks: Flat, more: Flat) -> dict[str, Tensor]:
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
