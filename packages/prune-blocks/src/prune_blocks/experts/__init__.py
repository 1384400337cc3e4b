"""Pruning of experts: which experts of a mixture matter least, seen on data."""
