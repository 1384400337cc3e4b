"""Which masked channels a speedup would leave, so that no budget can count on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor, nn

from prune_speedup.engine.labels import among
from prune_speedup.engine.mask_effects import standing
from prune_speedup.pruning.coupling import Coupling
from prune_speedup.torch.masks import flat_masks, zeros_of

__all__ = ["makers_of", "staying"]

Masks = Mapping[str, Mapping[str, Tensor]]


def staying(coupling: Coupling, model: nn.Module, masks: Masks, units: Iterable[int]) -> list[int]:
    """Return those of some masked units that `shrink` does not remove unless told to.

    A layer normalisation that runs over a channel would normalise the others differently without
    it, and what no pruner masks, such as an embedding of positions, may still add to it.

    Args:
        coupling: The model's units.
        model: The model, not wrapped.
        masks: The masks, closed over what follows a channel.
        units: The numbers of the units that are masked.
    """
    labelling = coupling.units.labelling
    zeros = zeros_of(model, labelling.graph, flat_masks(model, masks))
    wanted = np.array(list(units), dtype=np.int64)
    gone = labelling.labels.find(standing(labelling, zeros).removable)
    stays: list[int] = wanted[~among(labelling.labels.find(wanted), gone)].tolist()
    return stays


def makers_of(coupling: Coupling, units: Iterable[int]) -> list[str]:
    """Return the names of the modules that make the channels of some units."""
    numbers = list(units)
    makers = coupling.producers.values()
    return [maker.name for maker in makers if among(maker.classes, numbers).any()]
