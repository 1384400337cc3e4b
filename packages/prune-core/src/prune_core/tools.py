"""What pruners are put together from, and what they may derive from, under one roof."""

from typing import TYPE_CHECKING, Any

from prune_core.calibration.statistics import Statistics
from prune_core.calibration.watch import InputWatch
from prune_core.pruning.allocate import (
    BankSparsityAllocator,
    BlockSparsityAllocator,
    GlobalSparsityAllocator,
    NMSparsityAllocator,
    NormalSparsityAllocator,
    OutlierSparsityAllocator,
    RowSparsityAllocator,
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
from prune_core.pruning.collect_inputs import (
    InputCollector,
    InputMeanCollector,
    InputNormCollector,
    InputVarianceCollector,
)
from prune_core.pruning.modes import allocator_for
from prune_core.pruning.oneshot import CHANNEL_TYPES, ChannelPruner, OneShotPruner
from prune_core.pruning.parts import make_part
from prune_core.pruning.reconstruct import (
    BatchNormStatistics,
    BiasCompensation,
    LayerFit,
    LayerReconstructor,
    LeastSquares,
    ModelReconstructor,
    Reconstructor,
)
from prune_core.pruning.score import (
    DistMetricsCalculator,
    MetricsCalculator,
    NormMetricsCalculator,
    StraightMetricsCalculator,
)
from prune_core.pruning.solver import LayerProblem, LayerSolver

if TYPE_CHECKING:
    from prune_speedup.torch import DependencyAwareAllocator

__all__ = [
    "CHANNEL_TYPES",
    "ActivationCollector",
    "ActivationGradientCollector",
    "BankSparsityAllocator",
    "BatchNormStatistics",
    "BiasCompensation",
    "BlockSparsityAllocator",
    "CalibratedCollector",
    "ChannelPruner",
    "DataCollector",
    "DependencyAwareAllocator",
    "DistMetricsCalculator",
    "GlobalSparsityAllocator",
    "GradientCollector",
    "InputCollector",
    "InputMeanCollector",
    "InputNormCollector",
    "InputVarianceCollector",
    "InputWatch",
    "LayerFit",
    "LayerProblem",
    "LayerReconstructor",
    "LayerSolver",
    "LeastSquares",
    "MetricsCalculator",
    "ModelReconstructor",
    "NMSparsityAllocator",
    "NormMetricsCalculator",
    "NormalSparsityAllocator",
    "OneShotPruner",
    "OutlierSparsityAllocator",
    "Reconstructor",
    "RowSparsityAllocator",
    "SparsityAllocator",
    "Statistics",
    "StraightMetricsCalculator",
    "WeightDataCollector",
    "allocator_for",
    "make_part",
]


def __getattr__(name: str) -> Any:
    if name == "DependencyAwareAllocator":
        from prune_core.registry import get_part

        return get_part("allocator", "dependency_aware")
    raise AttributeError(f"module 'prune_core.tools' has no attribute {name!r}")
