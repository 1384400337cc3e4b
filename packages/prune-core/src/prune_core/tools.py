"""The parts from which pruners are put together, under one roof for authors."""

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
from prune_core.pruning.score import (
    DistMetricsCalculator,
    MetricsCalculator,
    NormMetricsCalculator,
    StraightMetricsCalculator,
)

__all__ = [
    "ActivationCollector",
    "ActivationGradientCollector",
    "BankSparsityAllocator",
    "CalibratedCollector",
    "DataCollector",
    "DependencyAwareAllocator",
    "DistMetricsCalculator",
    "GlobalSparsityAllocator",
    "GradientCollector",
    "MetricsCalculator",
    "NMSparsityAllocator",
    "NormMetricsCalculator",
    "NormalSparsityAllocator",
    "SparsityAllocator",
    "StraightMetricsCalculator",
    "WeightDataCollector",
]
