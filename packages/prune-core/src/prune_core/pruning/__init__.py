"""What every pruner of torch models is, and the files that it writes."""

from prune_core.pruning.pruner import Pruner

__all__ = ["Pruner"]
