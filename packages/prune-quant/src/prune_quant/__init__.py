"""Pruning of the output channels whose weights differ least; by name: `prune-quant:spread`."""
