"""What torch pruners are put together from: collectors, metrics, allocators, reconstructors.

Names are imported when they are first used, so that `import prune_toolkit` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_speedup.torch import DependencyAwareAllocator as DependencyAwareAllocator
    from prune_toolkit.__about__ import __version__ as __version__
    from prune_toolkit.allocate import BankSparsityAllocator as BankSparsityAllocator
    from prune_toolkit.allocate import BlockSparsityAllocator as BlockSparsityAllocator
    from prune_toolkit.allocate import GlobalSparsityAllocator as GlobalSparsityAllocator
    from prune_toolkit.allocate import NMSparsityAllocator as NMSparsityAllocator
    from prune_toolkit.allocate import NormalSparsityAllocator as NormalSparsityAllocator
    from prune_toolkit.allocate import OutlierSparsityAllocator as OutlierSparsityAllocator
    from prune_toolkit.allocate import RowSparsityAllocator as RowSparsityAllocator
    from prune_toolkit.allocate import SparsityAllocator as SparsityAllocator
    from prune_toolkit.basic import BasicPruner as BasicPruner
    from prune_toolkit.calibration.statistics import Statistics as Statistics
    from prune_toolkit.calibration.watch import InputWatch as InputWatch
    from prune_toolkit.collect import ActivationCollector as ActivationCollector
    from prune_toolkit.collect import ActivationGradientCollector as ActivationGradientCollector
    from prune_toolkit.collect import CalibratedCollector as CalibratedCollector
    from prune_toolkit.collect import DataCollector as DataCollector
    from prune_toolkit.collect import GradientCollector as GradientCollector
    from prune_toolkit.collect import WeightDataCollector as WeightDataCollector
    from prune_toolkit.collect_inputs import InputCollector as InputCollector
    from prune_toolkit.collect_inputs import InputMeanCollector as InputMeanCollector
    from prune_toolkit.collect_inputs import InputNormCollector as InputNormCollector
    from prune_toolkit.collect_inputs import InputVarianceCollector as InputVarianceCollector
    from prune_toolkit.composed import ComposedPruner as ComposedPruner
    from prune_toolkit.modes import allocator_for as allocator_for
    from prune_toolkit.oneshot import CHANNEL_TYPES as CHANNEL_TYPES
    from prune_toolkit.oneshot import ChannelPruner as ChannelPruner
    from prune_toolkit.oneshot import OneShotPruner as OneShotPruner
    from prune_toolkit.parts import make_part as make_part
    from prune_toolkit.reconstruct import BatchNormStatistics as BatchNormStatistics
    from prune_toolkit.reconstruct import BiasCompensation as BiasCompensation
    from prune_toolkit.reconstruct import LayerFit as LayerFit
    from prune_toolkit.reconstruct import LayerReconstructor as LayerReconstructor
    from prune_toolkit.reconstruct import LeastSquares as LeastSquares
    from prune_toolkit.reconstruct import ModelReconstructor as ModelReconstructor
    from prune_toolkit.reconstruct import Reconstructor as Reconstructor
    from prune_toolkit.score import DistMetricsCalculator as DistMetricsCalculator
    from prune_toolkit.score import MetricsCalculator as MetricsCalculator
    from prune_toolkit.score import NormMetricsCalculator as NormMetricsCalculator
    from prune_toolkit.score import StraightMetricsCalculator as StraightMetricsCalculator
    from prune_toolkit.solver import LayerProblem as LayerProblem
    from prune_toolkit.solver import LayerSolver as LayerSolver

_HOMES = {
    "__about__": ("__version__",),
    "allocate": (
        "BankSparsityAllocator",
        "BlockSparsityAllocator",
        "GlobalSparsityAllocator",
        "NMSparsityAllocator",
        "NormalSparsityAllocator",
        "OutlierSparsityAllocator",
        "RowSparsityAllocator",
        "SparsityAllocator",
    ),
    "basic": ("BasicPruner",),
    "calibration.statistics": ("Statistics",),
    "calibration.watch": ("InputWatch",),
    "collect": (
        "ActivationCollector",
        "ActivationGradientCollector",
        "CalibratedCollector",
        "DataCollector",
        "GradientCollector",
        "WeightDataCollector",
    ),
    "collect_inputs": (
        "InputCollector",
        "InputMeanCollector",
        "InputNormCollector",
        "InputVarianceCollector",
    ),
    "composed": ("ComposedPruner",),
    "modes": ("allocator_for",),
    "oneshot": ("CHANNEL_TYPES", "ChannelPruner", "OneShotPruner"),
    "parts": ("make_part",),
    "reconstruct": (
        "BatchNormStatistics",
        "BiasCompensation",
        "LayerFit",
        "LayerReconstructor",
        "LeastSquares",
        "ModelReconstructor",
        "Reconstructor",
    ),
    "score": (
        "DistMetricsCalculator",
        "MetricsCalculator",
        "NormMetricsCalculator",
        "StraightMetricsCalculator",
    ),
    "solver": ("LayerProblem", "LayerSolver"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted((*_HOME_OF, "DependencyAwareAllocator"))


def __getattr__(name: str) -> Any:
    if name == "DependencyAwareAllocator":  # the engine's, which knows what belongs together
        from prune_core.registry import get_part

        return get_part("allocator", "dependency_aware")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'prune_toolkit' has no attribute {name!r}")
    value = getattr(import_module(f"prune_toolkit.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
