"""Data becomes scores, scores become masks."""

from prune_core.pruning.basic import BasicPruner
from prune_core.pruning.oneshot import ChannelPruner
from prune_core.pruning.pruner import Pruner

__all__ = ["BasicPruner", "ChannelPruner", "Pruner"]
