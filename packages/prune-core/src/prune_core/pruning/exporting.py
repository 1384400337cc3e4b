"""Writing models for other tools: the door to `prune_export`, which prune-export brings."""

from typing import TYPE_CHECKING

from prune_core.doors import door

if TYPE_CHECKING:
    from prune_export import export as export

__getattr__, __dir__ = door("prune_export", "prune-export")
