"""How much to prune so that what is left fits a budget."""

from prune_core.budget.cost import Cost, cost_of
from prune_core.budget.target import fit_budget

__all__ = ["Cost", "cost_of", "fit_budget"]
