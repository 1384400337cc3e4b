"""Sizes that a model has written down, and how they follow its smaller tensors."""
