"""Budgets: what may be left of a model, and which sparsities meet it."""
