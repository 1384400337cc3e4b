"""Groups of units that a dependency-aware pruner may choose from, and why not from others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import gcd, lcm
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from prune_speedup.engine.families import alike
from prune_speedup.engine.labels import Array, among
from prune_speedup.pruning.coupling import Coupling, Producer

if TYPE_CHECKING:
    from prune_speedup.engine.units import UnitGroup

__all__ = ["Choice", "Family", "choice", "spare", "sparing", "staying"]


@dataclass(frozen=True, slots=True)
class Family:
    """Groups of units that lose as many as each other; most often it is one group.

    Attributes:
        groups: The groups, equally long.
        producers: For each group the modules that make its channels.
    """

    groups: list[UnitGroup]
    producers: list[list[Producer]]

    def __len__(self) -> int:
        return len(self.groups[0])

    @property
    def names(self) -> list[str]:
        """The modules that make the channels."""
        return [producer.name for each in self.producers for producer in each]

    def multiple(self, round_to: int) -> int:
        """How many units make a multiple of `round_to` channels in every module.

        A unit may be several channels of a module: one of each group, or a whole head.
        """
        widths = [
            width
            for group, producers in zip(self.groups, self.producers, strict=True)
            for width in _widths(producers, np.array(group.labels))
        ]
        return lcm(*(round_to // gcd(round_to, width) for width in widths))


def _widths(producers: Iterable[Producer], labels: Array) -> list[int]:
    return [int(among(each.classes, labels).sum()) // len(labels) for each in producers]


class Choice(NamedTuple):
    """What a pruner may choose from.

    Attributes:
        families: The families of which units may go.
        held: Families that stay because a module among them is not selected: {module: of whom}.
        spared: Modules that stay because nothing would be removed of what is masked.
        fixed: Modules that cannot lose a channel, and why.
    """

    families: list[Family]
    held: dict[str, str]
    spared: list[str]
    fixed: dict[str, str]


def choice(coupling: Coupling, selected: Collection[str], *, uniform: bool) -> Choice:
    """Sort out what may be pruned of the selected modules, and belongs together.

    Args:
        coupling: The model's units; the model must not be wrapped meanwhile.
        selected: The names of the modules that the pruner masks.
        uniform: Whether groups that are alike lose as many.
    """
    groups = coupling.units.groups
    found = Choice([], {}, [], {})
    for together in alike(coupling.units) if uniform else [[group] for group in groups]:
        family = Family(together, [coupling.of_group(group) for group in together])
        wanted = [name for name in family.names if name in selected]
        if not wanted:
            continue
        held = [name for name in family.names if name not in selected]
        held += [
            group.name
            for group, producers in zip(together, family.producers, strict=True)
            if not producers
        ]
        if held:
            found.held[wanted[0]] = held[0]
        else:
            found.families.append(family)
    for name in selected:
        if name not in coupling.producers:
            found.fixed[name] = coupling.why_fixed(name)
    return found


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
    return np.setdiff1d(units, coupling.closing(masks).removable)


def _masks(
    coupling: Coupling, families: Iterable[Family], units: Array
) -> Mapping[str, Mapping[str, torch.Tensor]]:
    producers = {name: coupling.producers[name] for family in families for name in family.names}
    return {name: coupling.masks_of(producer, units) for name, producer in producers.items()}
