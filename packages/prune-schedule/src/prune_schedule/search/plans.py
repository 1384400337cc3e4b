"""The plans of a search, as searches in every framework yield them."""

from prune_speedup.search.plans import DeadEndError, Plan, Plans, Sparsities, side_by_side

__all__ = ["DeadEndError", "Plan", "Plans", "Sparsities", "side_by_side"]
