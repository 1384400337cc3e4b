"""How much to prune so that what is left fits a budget."""

from prune_speedup.budget.target import fit_budget

__all__ = ["fit_budget"]
