"""Schedules and searches for torch, over any registered one-shot algorithm.

Names are imported when they are first used, so that `import prune_schedule` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_schedule.__about__ import __version__ as __version__
    from prune_schedule.admm import *  # noqa: F403
    from prune_schedule.agp import *  # noqa: F403
    from prune_schedule.amc import *  # noqa: F403
    from prune_schedule.annealing import *  # noqa: F403
    from prune_schedule.autocompress import *  # noqa: F403
    from prune_schedule.constant import *  # noqa: F403
    from prune_schedule.gradual import *  # noqa: F403
    from prune_schedule.linear import *  # noqa: F403
    from prune_schedule.netadapt import *  # noqa: F403
    from prune_schedule.one_cycle import *  # noqa: F403
    from prune_schedule.plots import *  # noqa: F403
    from prune_schedule.result import *  # noqa: F403
    from prune_schedule.scheduler import *  # noqa: F403
    from prune_schedule.sensitivity import *  # noqa: F403
    from prune_schedule.trials import *  # noqa: F403

_HOMES = {
    "__about__": ("__version__",),
    "admm": ("ADMMPruner",),
    "agp": ("AGPPruner",),
    "amc": ("AMCPruner",),
    "annealing": ("SimulatedAnnealingPruner",),
    "autocompress": ("AutoCompressPruner",),
    "constant": ("ConstantPruner",),
    "gradual": ("GradualPruner",),
    "linear": ("LinearPruner",),
    "netadapt": ("NetAdaptPruner",),
    "one_cycle": ("OneCyclePruner",),
    "plots": ("plot_history", "plot_sensitivity", "plot_sparsities"),
    "result": ("Result",),
    "scheduler": (
        "AGPTaskGenerator",
        "LinearTaskGenerator",
        "LotteryTicketTaskGenerator",
        "PruningScheduler",
        "SimulatedAnnealingTaskGenerator",
        "TaskGenerator",
    ),
    "sensitivity": ("SensitivityPruner",),
    "trials": ("Trials",),
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
