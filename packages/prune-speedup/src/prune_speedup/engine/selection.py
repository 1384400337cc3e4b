"""Groups of units that a pruner may choose from, and why not from others.

Nothing in here knows a framework: what makes channels is a *producer*, a module of torch or a
layer of Keras.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import gcd, lcm
from typing import NamedTuple, Protocol

import numpy as np

from prune_speedup.engine.families import alike
from prune_speedup.engine.labels import Array, among
from prune_speedup.engine.units import UnitGroup, Units

__all__ = [
    "Choice",
    "Coupled",
    "Family",
    "Producer",
    "choice",
]


@dataclass(frozen=True, slots=True)
class Producer:
    """A module whose output channels belong to units.

    Attributes:
        name: The module's name.
        tensor: The name of its weight.
        classes: For each output channel the number of its unit, 0 where it must stay.
    """

    name: str
    tensor: str
    classes: Array


class Coupled(Protocol):
    """The units of a model, seen from the modules that make channels."""

    units: Units
    producers: dict[str, Producer]

    def of_group(self, group: UnitGroup) -> list[Producer]:
        """Return the modules that make the channels of a group."""

    def why_fixed(self, name: str) -> str:
        """Return why a module can lose none of its output channels."""


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


def choice(coupling: Coupled, selected: Collection[str], *, uniform: bool) -> Choice:
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
