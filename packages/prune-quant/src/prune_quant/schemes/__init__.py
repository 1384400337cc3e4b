"""Quantising by the name of a scheme, which torchao does."""
