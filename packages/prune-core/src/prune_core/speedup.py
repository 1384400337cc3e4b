"""Making models smaller: the door to the engine for torch models.

The engine is a plugin, `prune-speedup`, which registers itself with `prune_register_engines`. What
is imported from here comes from it, on first use.
"""

from typing import TYPE_CHECKING

from prune_core.doors import engine_door

if TYPE_CHECKING:
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

__getattr__, __dir__ = engine_door()
