"""What pruners are put together from: the door to `prune_toolkit`, which prune-toolkit brings."""

from prune_core.doors import door

__getattr__, __dir__ = door("prune_toolkit", "prune-toolkit")
