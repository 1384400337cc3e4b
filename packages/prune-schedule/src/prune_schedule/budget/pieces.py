"""The smallest pieces that a pruner of torch models masks."""

from __future__ import annotations

from prune_core import Pruner
from prune_speedup.pruning.dependency_aware import DependencyAwareAllocator
from prune_speedup.search.pieces import Piece, coupled_pieces

__all__ = ["pieces_of"]


def pieces_of(pruner: Pruner) -> list[Piece]:
    """Return what a pruner masks as a whole; a layer that is in none of it stays dense."""
    wrappers = pruner.get_modules_wrapper()
    sizes = {n: w.module.get_parameter(w.target).numel() for n, w in wrappers.items()}
    allocator = getattr(pruner, "sparsity_allocator", None)
    if isinstance(allocator, DependencyAwareAllocator):
        return coupled_pieces(allocator.coupling, sizes)
    pieces = []
    for name, wrapper in wrappers.items():
        parts = sizes[name] if allocator is None else allocator.parts(wrapper)
        pieces.append(Piece(parts, {name: sizes[name] // parts}))
    return pieces
