"""Where scripts for the predecessor look for `count_flops_params`: a door to the engine."""

from typing import TYPE_CHECKING

from prune_core.doors import engine_door

if TYPE_CHECKING:
    from prune_speedup.torch.counter import count_flops_params as count_flops_params

__getattr__, __dir__ = engine_door()
