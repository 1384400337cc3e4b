"""The smallest pieces that a pruner of torch models masks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from prune_core import Pruner
from prune_speedup.pruning.dependency_aware import DependencyAwareAllocator
from prune_speedup.sparsities.pieces import Piece

__all__ = ["pieces_of"]


def pieces_of(pruner: Pruner) -> list[Piece]:
    """Return what a pruner masks as a whole; a layer that is in none of it stays dense."""
    wrappers = pruner.get_modules_wrapper()
    sizes = {n: w.module.get_parameter(w.target).numel() for n, w in wrappers.items()}
    allocator = getattr(pruner, "sparsity_allocator", None)
    if isinstance(allocator, DependencyAwareAllocator):
        return _coupled(allocator, sizes)
    pieces = []
    for name, wrapper in wrappers.items():
        parts = sizes[name] if allocator is None else allocator.parts(wrapper)
        pieces.append(Piece(parts, {name: sizes[name] // parts}))
    return pieces


def _coupled(allocator: DependencyAwareAllocator, sizes: Mapping[str, int]) -> list[Piece]:
    pieces = []
    for group in allocator.coupling.units.groups:
        makers = allocator.coupling.of_group(group)
        if not makers or not {maker.name for maker in makers} <= set(sizes):
            continue  # it also belongs to a layer that is not pruned, and stays whole
        weights: dict[str, int] = {}
        for maker in makers:
            channels = int(np.isin(maker.classes, group.labels).sum())
            each = sizes[maker.name] // len(maker.classes)
            weights[maker.name] = weights.get(maker.name, 0) + channels * each // len(group)
        pieces.append(Piece(len(group), weights))
    return pieces
