"""How much to prune so that what is left fits a budget."""
