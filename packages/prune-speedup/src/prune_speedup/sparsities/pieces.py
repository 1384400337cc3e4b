"""The smallest pieces that an algorithm masks: weights, channels, coupled channels.

A layer of eight filters can lose three or four of them, and not 45 %. Who keeps to a budget has to
know that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prune_core.amount import number_to_prune

__all__ = ["Piece"]


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
