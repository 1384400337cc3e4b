"""The parts from which pruners are put together, under one roof for authors."""

from prune_core.calibration.statistics import Statistics
from prune_core.calibration.watch import InputWatch
from prune_core.pruning.allocate import (
    BankSparsityAllocator,
    BlockSparsityAllocator,
    DependencyAwareAllocator,
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
