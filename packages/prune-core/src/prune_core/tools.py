"""What pruners are put together from, and what they may derive from, under one roof."""

from typing import TYPE_CHECKING, Any

from prune_core.pruning.allocate import (
    BankSparsityAllocator,
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

if TYPE_CHECKING:
    from prune_speedup.torch import DependencyAwareAllocator

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


def __getattr__(name: str) -> Any:
    if name == "DependencyAwareAllocator":
        from prune_core.registry import get_part

        return get_part("allocator", "dependency_aware")
    raise AttributeError(f"module 'prune_core.tools' has no attribute {name!r}")
