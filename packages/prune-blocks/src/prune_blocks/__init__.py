"""Pruning of whole structures: layers and residual branches, and the experts of a mixture."""
