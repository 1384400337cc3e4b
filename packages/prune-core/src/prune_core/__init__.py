"""Make neural networks smaller and faster, and prove that they still compute the same.

Names are imported when they are first used: `import prune_core` costs milliseconds and loads
neither torch nor TensorFlow, and the parts that need torch say so when it is missing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_core.__about__ import __version__ as __version__
    from prune_core.errors import *  # noqa: F403
    from prune_core.hookspecs import hookimpl as hookimpl
    from prune_core.masking import unwrap as unwrap
    from prune_core.masking.files import apply_compression_results as apply_compression_results
    from prune_core.masking.files import load_masks as load_masks
    from prune_core.masking.files import save_masks as save_masks
    from prune_core.pruning import BasicPruner as BasicPruner
    from prune_core.pruning import Pruner as Pruner
    from prune_core.registry import Plugin as Plugin
    from prune_core.registry import Reference as Reference
    from prune_core.registry import entries as entries
    from prune_core.registry import get_part as get_part
    from prune_core.registry import get_pruner as get_pruner
    from prune_core.registry import get_schedule as get_schedule
    from prune_core.registry import plugins as plugins
    from prune_core.speedup import ModelSpeedup as ModelSpeedup
    from prune_core.speedup import SpeedupReport as SpeedupReport
    from prune_core.speedup import load_pruned as load_pruned
    from prune_core.speedup import save_pruned as save_pruned
    from prune_core.speedup import shrink as shrink
    from prune_speedup.engine.units import units as units
    from prune_speedup.one_shot import prune as prune

_HOMES = {
    "__about__": ("__version__",),
    "errors": (
        "AmbiguousNameError",
        "ConfigError",
        "MaskError",
        "MaskFileError",
        "MissingDependencyError",
        "PluginError",
        "PluginWarning",
        "PruneError",
        "PruneWarning",
        "SpeedupError",
        "UnknownNameError",
    ),
    "graph": ("units",),
    "hookspecs": ("hookimpl",),
    "masking": ("unwrap",),
    "masking.files": ("apply_compression_results", "load_masks", "save_masks"),
    "oneline": ("prune",),
    "pruning": ("BasicPruner", "Pruner"),
    "registry": (
        "Plugin",
        "Reference",
        "entries",
        "get_part",
        "get_pruner",
        "get_schedule",
        "plugins",
    ),
    "speedup": ("ModelSpeedup", "SpeedupReport", "load_pruned", "save_pruned", "shrink"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'prune_core' has no attribute {name!r}")
    try:
        module = import_module(f"prune_core.{home}")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from prune_core.errors import MissingDependencyError

        raise MissingDependencyError(
            f"prune_core.{name} needs torch: `pip install 'prune-core[torch]'`."
        ) from None
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
