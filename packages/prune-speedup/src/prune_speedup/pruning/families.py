"""Groups of units that a pruner had better leave alone, since nothing of them would be removed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from prune_speedup.engine.labels import Array, among
from prune_speedup.engine.selection import Choice, Family
from prune_speedup.pruning.coupling import Coupling

__all__ = ["spare", "spare_normed", "sparing", "staying"]


def spare_normed(coupling: Coupling, found: Choice) -> Choice:
    """Leave out families that a layer normalisation holds, which no trial has to find out.

    Such a norm runs over what is zero, too, unless the unit is masked in all that it has a slice
    of. In `norm(x + conv(y))`, read by a linear layer, closed masks reach the convolution's rows
    and the norm's own factors, and never the columns of the linear layer.

    Args:
        coupling: The model's units.
        found: What may be pruned otherwise.
    """
    return sparing(found, coupling.normed) if len(coupling.normed) else found


def spare(coupling: Coupling, found: Choice) -> Choice:
    """Leave out families of which the speedup would keep what is masked.

    Half of the units of each are masked for a trial: a part, so that what reads them still reads
    something, and as closely as `compress()` would close such masks.

    Args:
        coupling: The model's units; the model must not be wrapped meanwhile.
        found: What may be pruned otherwise.
    """
    tried = [
        np.sort(np.array(group.labels))[: max(1, len(group) // 2)]
        for family in found.families
        for group in family.groups
    ]
    if not tried:
        return found
    units = np.concatenate(tried)
    return sparing(found, staying(coupling, _masks(coupling, found.families, units), units))


def sparing(found: Choice, stays: Array) -> Choice:
    """Leave out families of which masked units would stay.

    Args:
        found: What may be pruned otherwise.
        stays: Units that a trial has masked and that would stay.
    """
    families: list[Family] = []
    spared: list[str] = []
    for family in found.families:
        if any(among(group.labels, stays).any() for group in family.groups):
            spared += family.names
        else:
            families.append(family)
    return found._replace(families=families, spared=[*found.spared, *spared])


def staying(
    coupling: Coupling, masks: Mapping[str, Mapping[str, torch.Tensor]], units: Array
) -> Array:
    """Return those of some masked units that the speedup would keep, with closed masks."""
    return units[~among(units, coupling.closing(masks).removable)]


def _masks(
    coupling: Coupling, families: Iterable[Family], units: Array
) -> Mapping[str, Mapping[str, torch.Tensor]]:
    producers = {name: coupling.producers[name] for family in families for name in family.names}
    return {name: coupling.masks_of(producer, units) for name, producer in producers.items()}
