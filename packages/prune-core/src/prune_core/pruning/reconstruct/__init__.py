"""Weights that stay make up for what is pruned."""

from prune_core.pruning.reconstruct.base import (
    LayerFit,
    LayerReconstructor,
    ModelReconstructor,
    Reconstructor,
)
from prune_core.pruning.reconstruct.batch_norm import BatchNormStatistics
from prune_core.pruning.reconstruct.bias import BiasCompensation
from prune_core.pruning.reconstruct.least_squares import LeastSquares

__all__ = [
    "BatchNormStatistics",
    "BiasCompensation",
    "LayerFit",
    "LayerReconstructor",
    "LeastSquares",
    "ModelReconstructor",
    "Reconstructor",
]
