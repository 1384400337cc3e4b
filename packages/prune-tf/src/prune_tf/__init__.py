"""Pruning for Keras 3, with the rules, masks and registry of prune-core.

Names are imported when they are first used, so that listing what is installed loads no framework.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prune_tf.registration import register_with_keras

if TYPE_CHECKING:
    from prune_tf.__about__ import __version__ as __version__
    from prune_tf.admm import ADMMPruner as ADMMPruner
    from prune_tf.constraint import Masked as Masked
    from prune_tf.export import export_model as export_model
    from prune_tf.export import gzipped_size as gzipped_size
    from prune_tf.files import load_masks as load_masks
    from prune_tf.files import save_masks as save_masks
    from prune_tf.gradual import AGPPruner as AGPPruner
    from prune_tf.gradual import GradualPruner as GradualPruner
    from prune_tf.gradual import LinearPruner as LinearPruner
    from prune_tf.lottery import LotteryTicketPruner as LotteryTicketPruner
    from prune_tf.masks import apply_masks as apply_masks
    from prune_tf.masks import masks_of as masks_of
    from prune_tf.masks import set_masks as set_masks
    from prune_tf.masks import unwrap as unwrap
    from prune_tf.one_shot import prune as prune
    from prune_tf.pruning.activation import (
        ActivationAPoZRankPruner as ActivationAPoZRankPruner,
    )
    from prune_tf.pruning.activation import (
        ActivationMeanRankPruner as ActivationMeanRankPruner,
    )
    from prune_tf.pruning.block import BlockPruner as BlockPruner
    from prune_tf.pruning.fpgm import FPGMPruner as FPGMPruner
    from prune_tf.pruning.level import LevelPruner as LevelPruner
    from prune_tf.pruning.nm import NMPruner as NMPruner
    from prune_tf.pruning.norm import L1NormPruner as L1NormPruner
    from prune_tf.pruning.norm import L2NormPruner as L2NormPruner
    from prune_tf.pruning.pruner import Pruner as Pruner
    from prune_tf.pruning.slim import SlimPruner as SlimPruner
    from prune_tf.pruning.taylor import TaylorFOWeightPruner as TaylorFOWeightPruner
    from prune_tf.pruning.wanda import WandaPruner as WandaPruner
    from prune_tf.schedule import AGPSchedule as AGPSchedule
    from prune_tf.schedule import PruningSchedule as PruningSchedule
    from prune_tf.schedule import polynomial as polynomial
    from prune_tf.search.amc import AMCPruner as AMCPruner
    from prune_tf.search.annealing import SimulatedAnnealingPruner as SimulatedAnnealingPruner
    from prune_tf.search.autocompress.pruner import AutoCompressPruner as AutoCompressPruner
    from prune_tf.search.base import SearchPruner as SearchPruner
    from prune_tf.search.netadapt import NetAdaptPruner as NetAdaptPruner
    from prune_tf.search.sensitivity import SensitivityPruner as SensitivityPruner
    from prune_tf.speedup import SpeedupReport as SpeedupReport
    from prune_tf.speedup import load_pruned as load_pruned
    from prune_tf.speedup import save_pruned as save_pruned
    from prune_tf.speedup import shrink as shrink
    from prune_tf.speedup import units as units

_HOMES = {
    "__about__": ("__version__",),
    "admm": ("ADMMPruner",),
    "constraint": ("Masked",),
    "export": ("export_model", "gzipped_size"),
    "files": ("load_masks", "save_masks"),
    "gradual": ("AGPPruner", "GradualPruner", "LinearPruner"),
    "lottery": ("LotteryTicketPruner",),
    "masks": ("apply_masks", "masks_of", "set_masks", "unwrap"),
    "one_shot": ("prune",),
    "pruning.activation": ("ActivationAPoZRankPruner", "ActivationMeanRankPruner"),
    "pruning.block": ("BlockPruner",),
    "pruning.fpgm": ("FPGMPruner",),
    "pruning.level": ("LevelPruner",),
    "pruning.nm": ("NMPruner",),
    "pruning.norm": ("L1NormPruner", "L2NormPruner"),
    "pruning.pruner": ("Pruner",),
    "pruning.slim": ("SlimPruner",),
    "pruning.taylor": ("TaylorFOWeightPruner",),
    "pruning.wanda": ("WandaPruner",),
    "schedule": ("AGPSchedule", "PruningSchedule", "polynomial"),
    "search.amc": ("AMCPruner",),
    "search.annealing": ("SimulatedAnnealingPruner",),
    "search.autocompress.pruner": ("AutoCompressPruner",),
    "search.base": ("SearchPruner",),
    "search.netadapt": ("NetAdaptPruner",),
    "search.sensitivity": ("SensitivityPruner",),
    "speedup": ("SpeedupReport", "load_pruned", "save_pruned", "shrink", "units"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)

_OF_TORCH = {
    "ModelSpeedup": " It is torch's; here shrink(model) returns a small model.",
    "L1FilterPruner": " It is called L1NormPruner now.",
    "L2FilterPruner": " It is called L2NormPruner now.",
}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        from prune_core.errors import did_you_mean

        hint = _OF_TORCH.get(name) or did_you_mean(name, _HOME_OF)
        raise AttributeError(f"module 'prune_tf' has no attribute {name!r}.{hint}")
    value = getattr(import_module(f"prune_tf.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})


register_with_keras()
