"""The smallest pieces that an algorithm masks: weights, channels, coupled channels.

A layer of eight filters can lose three or four of them, and not 45 %. Who keeps to a budget has to
know that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from prune_core.amount import number_to_prune
from prune_speedup.engine.selection import Producer
from prune_speedup.engine.units import UnitGroup, Units

__all__ = ["Coupled", "Piece", "connected", "coupled_pieces", "makers_of_groups"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Equal parts, each of which is masked as a whole or not at all.

    Attributes:
        parts: How many there are.
        weights: How many weights of each layer one of them is.

    Example:
        >>> filters = Piece(8, {"conv": 27})
        >>> filters.masked({"conv": 0.45}), filters.masked({"conv": 0.5})
        (3, 4)
    """

    parts: int
    weights: Mapping[str, int]

    def masked(self, sparsities: Mapping[str, float]) -> int:
        """Return how many parts sparsities mask; layers lose the least that any is told."""
        return number_to_prune(min(sparsities[name] for name in self.weights), self.parts)


class Coupled(Protocol):
    """Which channels of a model belong together, in any framework.

    Attributes:
        units: The units of the model.
    """

    units: Units

    def of_group(self, group: UnitGroup) -> list[Producer]:
        """Return the layers that make the channels of a group."""


def makers_of_groups(coupling: Coupled, layers: Sequence[str]) -> dict[tuple[int, ...], list[str]]:
    """Return, for each group of units that may go, the layers that make its channels.

    A group that also belongs to a layer which is not pruned stays whole.
    """
    return {
        group.labels: made
        for group in coupling.units.groups
        if (made := [producer.name for producer in coupling.of_group(group)])
        and set(made) <= set(layers)
    }


def connected(sets: Iterable[Iterable[str]], order: Sequence[str]) -> list[list[str]]:
    """Return the layers that are tied to each other, directly or through others, in their order."""
    groups: list[set[str]] = []
    for members in sets:
        together = set(members)
        apart = []
        for group in groups:
            if group & together:
                together |= group
            else:
                apart.append(group)
        groups = [*apart, together]
    found = [[name for name in order if name in group] for group in groups]
    return sorted(found, key=lambda group: order.index(group[0]))


def coupled_pieces(coupling: Coupled, sizes: Mapping[str, int]) -> list[Piece]:
    """Return what is masked as a whole where channels that belong together go together.

    Args:
        coupling: Which they are.
        sizes: The number of weights of each layer that is masked; others stay dense, and so does
            what belongs to them.
    """
    pieces = []
    for group in coupling.units.groups:
        makers = coupling.of_group(group)
        if not makers or not {maker.name for maker in makers} <= set(sizes):
            continue  # it also belongs to a layer that is not pruned, and stays whole
        weights: dict[str, int] = {}
        for maker in makers:
            channels = int(np.isin(maker.classes, group.labels).sum())
            each = sizes[maker.name] // len(maker.classes)
            weights[maker.name] = weights.get(maker.name, 0) + channels * each // len(group)
        pieces.append(Piece(len(group), weights))
    return pieces
