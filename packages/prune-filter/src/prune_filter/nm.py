"""Single weights, n of every m kept, as sparse tensor cores want them."""

from __future__ import annotations

from typing import Unpack

from torch import nn

from prune_toolkit import (
    DataCollector,
    MetricsCalculator,
    NMSparsityAllocator,
    SparsityAllocator,
    StraightMetricsCalculator,
    WeightDataCollector,
)
from prune_toolkit.allocate import check_n_of_m
from prune_toolkit.basic import Options
from prune_toolkit.oneshot import CHANNEL_TYPES, ConfigList, OneShotPruner

__all__ = ["NMPruner"]


class NMPruner(OneShotPruner):
    """Keeps the n largest of every m weights along the input axis, by absolute value.

    `score = |w|`, compared within groups of m that lie next to each other along the input
    channels. With 2:4 a GPU of compute capability 8.0 or later can skip the zeros.

    Mishra et al., Accelerating Sparse Deep Neural Networks, https://arxiv.org/abs/2104.08378

    Args:
        model: The model, wrapped in place.
        config_list: The rules; the only ratio possible is `1 − n/m`.
        n: How many weights of a group are kept.
        m: How many weights a group has.
        dim: The axis of the weights along which groups lie; the input axis unless given.
        **options: `reconstruct=`, `calibrate=` and what else `BasicPruner` takes.

    Example:
        >>> from torch import nn
        >>> from prune_filter import NMPruner
        >>> model = nn.Sequential(nn.Linear(8, 2))
        >>> pruner = NMPruner(model, [{"sparsity": 0.5, "op_types": ["Linear"]}], n=2, m=4)
        >>> model, masks = pruner.compress()
        >>> masks["0"]["weight"].reshape(2, 2, 4).sum(-1).tolist()
        [[2, 2], [2, 2]]
    """

    default_types = CHANNEL_TYPES
    supported_types = (*CHANNEL_TYPES, "MultiheadAttention")

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        n: int = 2,
        m: int = 4,
        dim: int | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.n, self.m, self.dim = n, m, dim
        super().__init__(model, config_list, **options)

    def collector(self) -> DataCollector:
        """Gather the weights."""
        return WeightDataCollector(self)

    def calculator(self) -> MetricsCalculator:
        """Take the weights for the scores; their signs go when they are compared."""
        return StraightMetricsCalculator(copy=False)

    def allocator(self) -> SparsityAllocator:
        """Compare within groups, once the ratios asked for are the one there is."""
        allocator = NMSparsityAllocator(self, self.n, self.m, self.dim)
        check_n_of_m(self, self.n, self.m, self.dim)
        return allocator
