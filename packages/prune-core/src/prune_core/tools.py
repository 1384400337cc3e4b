"""What pruners are put together from: the door to `prune_toolkit`, which prune-toolkit brings."""

from typing import Any

_NAMES = [
    "CHANNEL_TYPES",
    "ActivationCollector",
    "ActivationGradientCollector",
    "BankSparsityAllocator",
    "BasicPruner",
    "BatchNormStatistics",
    "BiasCompensation",
    "BlockSparsityAllocator",
    "CalibratedCollector",
    "ChannelPruner",
    "ComposedPruner",
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
    if name not in _NAMES:
        raise AttributeError(f"module 'prune_core.tools' has no attribute {name!r}")
    try:
        import prune_toolkit

        return getattr(prune_toolkit, name)
    except ModuleNotFoundError as error:
        if error.name not in ("prune_toolkit", "torch"):
            raise
        from prune_core.errors import MissingDependencyError

        raise MissingDependencyError(
            f"prune_core.{name} comes with prune-toolkit: `pip install prune-toolkit`."
        ) from None


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
