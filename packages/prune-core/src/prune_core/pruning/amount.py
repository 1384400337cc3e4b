"""How many of n things a ratio prunes; the arithmetic is every framework's."""

from prune_core.amount import number_to_prune

__all__ = ["number_to_prune"]
