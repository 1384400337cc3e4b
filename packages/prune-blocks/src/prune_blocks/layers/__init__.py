"""Pruners that take whole layers out of a model, or residual branches of them."""
