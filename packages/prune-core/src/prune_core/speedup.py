"""Making models smaller: the door to the engine for torch models.

The engine is a plugin, `prune-speedup`, which registers itself with `prune_register_engines`. What
is imported from here comes from it, on first use.
"""

from typing import TYPE_CHECKING

from prune_core.doors import engine_door

if TYPE_CHECKING:
    from prune_speedup.torch import *  # noqa: F403

__getattr__, __dir__ = engine_door()
