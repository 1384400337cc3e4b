"""What pruners are put together from: the door to `prune_toolkit`, which prune-toolkit brings."""

from prune_core.doors import behind, door

__getattr__, __dir__ = door(behind("prune_toolkit", "prune-toolkit"))
