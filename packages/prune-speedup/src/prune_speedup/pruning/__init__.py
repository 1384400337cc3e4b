"""Pruning with a view of the whole model: what the units of the engine mean for its layers."""
