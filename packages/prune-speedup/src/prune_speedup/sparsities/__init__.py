"""Sparsities of several layers at once: which meet a budget, and a walk among those that do."""
