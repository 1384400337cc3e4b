"""Groups of units that a pruner had better leave alone, since nothing of them would be removed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from prune_speedup.engine.labels import Array, among
from prune_speedup.engine.selection import Choice, Family
from prune_speedup.pruning.coupling import Coupling

__all__ = ["spare", "sparing", "staying"]


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
    return found._replace(families=families, spared=spared)


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
