"""Searches for the sparsity of each layer."""
