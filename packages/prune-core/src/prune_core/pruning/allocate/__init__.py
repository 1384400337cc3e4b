"""From scores to masks."""

from prune_core.pruning.allocate.base import Masks, SparsityAllocator
from prune_core.pruning.allocate.over_layers import GlobalSparsityAllocator
from prune_core.pruning.allocate.per_layer import (
    BankSparsityAllocator,
    NMSparsityAllocator,
    NormalSparsityAllocator,
)

__all__ = [
    "BankSparsityAllocator",
    "GlobalSparsityAllocator",
    "Masks",
    "NMSparsityAllocator",
    "NormalSparsityAllocator",
    "SparsityAllocator",
]
