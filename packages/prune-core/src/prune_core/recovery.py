"""Training a pruned model again: the door to `prune_recover`, which prune-recover brings."""

from typing import TYPE_CHECKING

from prune_core.doors import door

if TYPE_CHECKING:
    from prune_recover import recover as recover

__getattr__, __dir__ = door("prune_recover", "prune-recover")
