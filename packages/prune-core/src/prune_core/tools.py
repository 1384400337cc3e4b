"""The parts from which pruners are put together, under one roof for authors."""

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
from prune_core.pruning.score import (
    DistMetricsCalculator,
    MetricsCalculator,
    NormMetricsCalculator,
    StraightMetricsCalculator,
)

if TYPE_CHECKING:
    from prune_speedup.torch import DependencyAwareAllocator

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


def __getattr__(name: str) -> Any:
    if name == "DependencyAwareAllocator":
        from prune_core.registry import get_part

        return get_part("allocator", "dependency_aware")
    raise AttributeError(f"module 'prune_core.tools' has no attribute {name!r}")
