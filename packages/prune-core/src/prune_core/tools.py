"""What pruners are put together from, and what they may derive from, under one roof."""

from prune_core.pruning.allocate import (
    BankSparsityAllocator,
    DependencyAwareAllocator,
    GlobalSparsityAllocator,
    NMSparsityAllocator,
    NormalSparsityAllocator,
    SparsityAllocator,
)
from prune_core.pruning.collect import (
    ActivationCollector,
    ActivationGradientCollector,
    CalibratedCollector,
    DataCollector,
    GradientCollector,
    WeightDataCollector,
)
from prune_core.pruning.modes import allocator_for
from prune_core.pruning.oneshot import CHANNEL_TYPES, ChannelPruner, OneShotPruner
from prune_core.pruning.score import (
    DistMetricsCalculator,
    MetricsCalculator,
    NormMetricsCalculator,
    StraightMetricsCalculator,
)

__all__ = [
    "CHANNEL_TYPES",
    "ActivationCollector",
    "ActivationGradientCollector",
    "BankSparsityAllocator",
    "CalibratedCollector",
    "ChannelPruner",
    "DataCollector",
    "DependencyAwareAllocator",
    "DistMetricsCalculator",
    "GlobalSparsityAllocator",
    "GradientCollector",
    "MetricsCalculator",
    "NMSparsityAllocator",
    "NormMetricsCalculator",
    "NormalSparsityAllocator",
    "OneShotPruner",
    "SparsityAllocator",
    "StraightMetricsCalculator",
    "WeightDataCollector",
    "allocator_for",
]
