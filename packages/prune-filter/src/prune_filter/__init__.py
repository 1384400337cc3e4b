"""One-shot pruning criteria for torch.

Names are imported when they are first used, so that `import prune_filter` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prune_filter.hooks import prune_register_pruners

if TYPE_CHECKING:
    from prune_filter.__about__ import __version__ as __version__
    from prune_filter.activation import *  # noqa: F403
    from prune_filter.evaluator import TorchEvaluator as TorchEvaluator
    from prune_filter.fpgm import *  # noqa: F403
    from prune_filter.grasp import *  # noqa: F403
    from prune_filter.hrank import *  # noqa: F403
    from prune_filter.level import *  # noqa: F403
    from prune_filter.movement import *  # noqa: F403
    from prune_filter.nm import *  # noqa: F403
    from prune_filter.norm import *  # noqa: F403
    from prune_filter.random import *  # noqa: F403
    from prune_filter.slim import *  # noqa: F403
    from prune_filter.snip import *  # noqa: F403
    from prune_filter.synflow import *  # noqa: F403
    from prune_filter.taylor import *  # noqa: F403

# Beside the registered pruners: their names in older releases, and what is no pruner.
_MORE = {
    "__about__": ("__version__",),
    "activation": ("ActivationAPoZRankFilterPruner", "ActivationMeanRankFilterPruner"),
    "evaluator": ("TorchEvaluator",),
    "norm": ("L1FilterPruner", "L2FilterPruner"),
    "taylor": ("TaylorFOWeightFilterPruner",),
}
_HOME_OF = {each.attribute: each.module for each in prune_register_pruners().values()}
_HOME_OF |= {name: f"prune_filter.{home}" for home, names in _MORE.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'prune_filter' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
