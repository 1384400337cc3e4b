"""Weights that stay make up for what is pruned."""

from prune_toolkit.reconstruct.base import (
    LayerFit,
    LayerReconstructor,
    ModelReconstructor,
    Reconstructor,
)
from prune_toolkit.reconstruct.batch_norm import BatchNormStatistics
from prune_toolkit.reconstruct.bias import BiasCompensation
from prune_toolkit.reconstruct.least_squares import LeastSquares

__all__ = [
    "BatchNormStatistics",
    "BiasCompensation",
    "LayerFit",
    "LayerReconstructor",
    "LeastSquares",
    "ModelReconstructor",
    "Reconstructor",
]
