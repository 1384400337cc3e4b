"""From scores to masks."""

from prune_core.pruning.allocate.base import Masks, SparsityAllocator
from prune_core.pruning.allocate.outliers import OutlierSparsityAllocator
from prune_core.pruning.allocate.over_layers import (
    BlockSparsityAllocator,
    GlobalSparsityAllocator,
)
from prune_core.pruning.allocate.per_layer import (
    BankSparsityAllocator,
    NMSparsityAllocator,
    NormalSparsityAllocator,
    check_n_of_m,
)
from prune_core.pruning.allocate.rows import RowSparsityAllocator

__all__ = [
    "BankSparsityAllocator",
    "BlockSparsityAllocator",
    "GlobalSparsityAllocator",
    "Masks",
    "NMSparsityAllocator",
    "NormalSparsityAllocator",
    "OutlierSparsityAllocator",
    "RowSparsityAllocator",
    "SparsityAllocator",
    "check_n_of_m",
]
