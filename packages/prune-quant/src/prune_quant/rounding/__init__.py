"""Rounding to integers: the grids, and what decides their steps."""
