"""From scores to masks."""

from prune_toolkit.allocate.base import SparsityAllocator
from prune_toolkit.allocate.outliers import OutlierSparsityAllocator
from prune_toolkit.allocate.over_layers import (
    BlockSparsityAllocator,
    GlobalSparsityAllocator,
)
from prune_toolkit.allocate.per_layer import (
    BankSparsityAllocator,
    NMSparsityAllocator,
    NormalSparsityAllocator,
    check_n_of_m,
)
from prune_toolkit.allocate.rows import RowSparsityAllocator

__all__ = [
    "BankSparsityAllocator",
    "BlockSparsityAllocator",
    "GlobalSparsityAllocator",
    "NMSparsityAllocator",
    "NormalSparsityAllocator",
    "OutlierSparsityAllocator",
    "RowSparsityAllocator",
    "SparsityAllocator",
    "check_n_of_m",
]
