"""Which groups of units are the same in all layers of a kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prune_speedup.engine.units import UnitGroup, Units

__all__ = ["alike"]

Cut = tuple[int, tuple[int, ...], int, int]
"""How many units there are, and a tensor's shape, the axis and how many indices each takes."""


def alike(units: Units) -> list[list[UnitGroup]]:
    """Return the groups, those together that cut a tensor of one shape in one way.

    In a transformer those are the hidden units of all layers, their heads, and whatever is as wide
    as the residual stream: what a single number in a config describes.
    """
    families: list[list[UnitGroup]] = []
    known: dict[Cut, list[UnitGroup]] = {}
    for group in units.groups:
        cuts = _cuts(units, group)
        family = [group]
        for other in {id(known[cut]): known[cut] for cut in cuts if cut in known}.values():
            families.remove(other)
            family = other + family
        families.append(family)
        known |= {cut: family for each in family for cut in _cuts(units, each)}
    return families


def _cuts(units: Units, group: UnitGroup) -> list[Cut]:
    return [
        (len(group), units.shapes[name], axis, int((units.axes[name, axis] == first).sum()))
        for first in group.labels[:1]
        for name, axis in group.axes
    ]
