"""Make neural networks smaller and faster, and prove that they still compute the same.

Names are imported when they are first used: `import prune_core` costs milliseconds and loads
neither torch nor TensorFlow, and the parts that need torch say so when it is missing.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # `typing` alone would take twice as long to import as all of this
if TYPE_CHECKING:
    from typing import Any

    from prune_core.__about__ import __version__ as __version__
    from prune_core.compressed import Compressed as Compressed
    from prune_core.errors import *  # noqa: F403
    from prune_core.hookspecs import hookimpl as hookimpl
    from prune_core.masking import unwrap as unwrap
    from prune_core.masking.files import apply_compression_results as apply_compression_results
    from prune_core.masking.files import load_masks as load_masks
    from prune_core.masking.files import save_masks as save_masks
    from prune_core.pruning import Pruner as Pruner
    from prune_core.pruning.export import masked_state_dict as masked_state_dict
    from prune_core.recovery import recover as recover
    from prune_core.registry import Plugin as Plugin
    from prune_core.registry import Reference as Reference
    from prune_core.registry import entries as entries
    from prune_core.registry import get_engine as get_engine
    from prune_core.registry import get_part as get_part
    from prune_core.registry import get_pruner as get_pruner
    from prune_core.registry import get_quantizer as get_quantizer
    from prune_core.registry import get_schedule as get_schedule
    from prune_core.registry import plugins as plugins
    from prune_export import export as export
    from prune_speedup.torch import ModelSpeedup as ModelSpeedup
    from prune_speedup.torch import SpeedupReport as SpeedupReport
    from prune_speedup.torch import blocks as blocks
    from prune_speedup.torch import count_flops_params as count_flops_params
    from prune_speedup.torch import experts as experts
    from prune_speedup.torch import from_pretrained as from_pretrained
    from prune_speedup.torch import load_pruned as load_pruned
    from prune_speedup.torch import prune as prune
    from prune_speedup.torch import remove_blocks as remove_blocks
    from prune_speedup.torch import remove_experts as remove_experts
    from prune_speedup.torch import remove_tokens as remove_tokens
    from prune_speedup.torch import save_pruned as save_pruned
    from prune_speedup.torch import shrink as shrink
    from prune_speedup.torch import shrink_checkpoint as shrink_checkpoint
    from prune_speedup.torch import shrink_optimizer as shrink_optimizer
    from prune_speedup.torch import units as units
    from prune_speedup.torch import used_tokens as used_tokens
    from prune_speedup.torch import vocabularies as vocabularies
    from prune_toolkit import BasicPruner as BasicPruner
    from prune_toolkit import ChannelPruner as ChannelPruner
    from prune_toolkit import ComposedPruner as ComposedPruner

_HOMES = {
    "__about__": ("__version__",),
    "compressed": ("Compressed",),
    "errors": (
        "AmbiguousNameError",
        "ConfigError",
        "MaskError",
        "MaskFileError",
        "MissingDependencyError",
        "OptionError",
        "PluginError",
        "PluginWarning",
        "PruneError",
        "PruneWarning",
        "SpeedupError",
        "UnknownNameError",
    ),
    "hookspecs": ("hookimpl",),
    "masking": ("unwrap",),
    "masking.files": ("apply_compression_results", "load_masks", "save_masks"),
    "pruning": ("Pruner",),
    "pruning.export": ("masked_state_dict",),
    "registry": (
        "Plugin",
        "Reference",
        "entries",
        "get_engine",
        "get_part",
        "get_pruner",
        "get_quantizer",
        "get_schedule",
        "plugins",
    ),
    # Doors, behind which another distribution is.
    "pruning.exporting": ("export",),
    "recovery": ("recover",),
    "speedup": (
        "ModelSpeedup",
        "SpeedupReport",
        "blocks",
        "count_flops_params",
        "experts",
        "from_pretrained",
        "load_pruned",
        "prune",
        "remove_blocks",
        "remove_experts",
        "remove_tokens",
        "save_pruned",
        "shrink",
        "shrink_checkpoint",
        "shrink_optimizer",
        "units",
        "used_tokens",
        "vocabularies",
    ),
    "tools": ("BasicPruner", "ChannelPruner", "ComposedPruner"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'prune_core' has no attribute {name!r}")
    try:
        return getattr(import_module(f"prune_core.{home}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from prune_core.errors import MissingDependencyError

        raise MissingDependencyError(
            f"prune_core.{name} needs torch: `pip install 'prune-core[torch]'`."
        ) from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
