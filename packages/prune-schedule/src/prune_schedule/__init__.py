"""Pruning schedules and searches for torch, with any registered one-shot algorithm.

Names are imported when they are first used, so that `import prune_schedule` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_schedule.__about__ import __version__ as __version__
    from prune_schedule.compat.scheduler import *  # noqa: F403
    from prune_schedule.plots import *  # noqa: F403
    from prune_schedule.run.result import *  # noqa: F403
    from prune_schedule.search.amc.pruner import *  # noqa: F403
    from prune_schedule.search.annealing import *  # noqa: F403
    from prune_schedule.search.autocompress.pruner import *  # noqa: F403
    from prune_schedule.search.base import *  # noqa: F403
    from prune_schedule.search.finetuned import *  # noqa: F403
    from prune_schedule.search.netadapt import *  # noqa: F403
    from prune_schedule.search.plans import *  # noqa: F403
    from prune_schedule.search.sensitivity import *  # noqa: F403
    from prune_schedule.store.trials import *  # noqa: F403
    from prune_schedule.timed.admm import *  # noqa: F403
    from prune_schedule.timed.agp import *  # noqa: F403
    from prune_schedule.timed.constant import *  # noqa: F403
    from prune_schedule.timed.gradual import *  # noqa: F403
    from prune_schedule.timed.linear import *  # noqa: F403
    from prune_schedule.timed.one_cycle import *  # noqa: F403

_HOMES = {
    "__about__": ("__version__",),
    "timed.admm": ("ADMMPruner",),
    "timed.agp": ("AGPPruner",),
    "search.amc.pruner": ("AMCPruner",),
    "search.base": ("SearchPruner",),
    "search.finetuned": ("FinetunedSearchPruner",),
    "search.plans": ("DeadEndError", "Plans", "Sparsities", "side_by_side"),
    "search.annealing": ("SimulatedAnnealingPruner",),
    "search.autocompress.pruner": ("AutoCompressPruner",),
    "timed.constant": ("ConstantPruner",),
    "timed.gradual": ("GradualPruner",),
    "timed.linear": ("LinearPruner",),
    "search.netadapt": ("NetAdaptPruner",),
    "timed.one_cycle": ("OneCyclePruner",),
    "plots": ("plot_history", "plot_sensitivity", "plot_sparsities"),
    "run.result": ("Result",),
    "compat.scheduler": (
        "AGPTaskGenerator",
        "LinearTaskGenerator",
        "LotteryTicketTaskGenerator",
        "PruningScheduler",
        "SimulatedAnnealingTaskGenerator",
        "TaskGenerator",
    ),
    "search.sensitivity": ("SensitivityPruner",),
    "store.trials": ("Trials",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'prune_schedule' has no attribute {name!r}")
    value = getattr(import_module(f"prune_schedule.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
