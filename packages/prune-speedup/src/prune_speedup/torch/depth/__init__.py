"""Whole structures of a model: finding residual branches and blocks, and taking them out."""
