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
    # A group belongs to where its number leads to, such as that of 3: `above[3] == 1 == above[1]`.
    above = list(range(len(units.groups)))
    first_with: dict[Cut, int] = {}
    for at, group in enumerate(units.groups):
        for cut in _cuts(units, group):
            above[_top(above, at)] = _top(above, first_with.setdefault(cut, at))
    families: dict[int, list[UnitGroup]] = {}
    for at, group in enumerate(units.groups):
        families.setdefault(_top(above, at), []).append(group)
    return list(families.values())


def _top(above: list[int], at: int) -> int:
    """Return where the way up ends, and make it shorter for the next time."""
    while above[at] != at:
        above[at] = above[above[at]]
        at = above[at]
    return at


def _cuts(units: Units, group: UnitGroup) -> list[Cut]:
    return [
        (len(group), units.shapes[name], axis, int((units.axes[name, axis] == first).sum()))
        for first in group.labels[:1]
        for name, axis in group.axes
    ]
