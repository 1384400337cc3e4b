"""Making models smaller: the door to the engine for torch models.

The engine is a plugin, `prune-speedup`, which registers itself with `prune_register_engines`. What
is imported from here comes from it, on first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_speedup.torch import ModelSpeedup as ModelSpeedup
    from prune_speedup.torch import SpeedupReport as SpeedupReport
    from prune_speedup.torch import blocks as blocks
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

__all__ = [
    "ModelSpeedup",
    "SpeedupReport",
    "blocks",
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
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'prune_core.speedup' has no attribute {name!r}")
    from prune_core.registry import get_engine

    return getattr(get_engine("torch", wanted=f"prune_core.{name}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
