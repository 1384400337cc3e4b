"""Biases that give what pruned weights gave on average."""

from __future__ import annotations

from torch import Tensor

from prune_toolkit.calibration.precision import wide
from prune_toolkit.reconstruct.base import LayerFit, LayerReconstructor
from prune_toolkit.reconstruct.least_squares import missing

__all__ = ["BiasCompensation"]


class BiasCompensation(LayerReconstructor):
    """Moves what pruned weights gave on average into the bias; other weights stay as they are.

        b ← b + (W − V) · mean of X

    with the weight W before and V after pruning. A layer that has no bias gets one.

    An et al., Fluctuation-based Adaptive Structured Pruning (FLAP),
    https://arxiv.org/abs/2312.11983

    Args:
        calibrate: Takes the model and runs it on some batches; that of the pruner unless given.
        batches: After how many batches to stop, or None.
    """

    def fit(self, layer: LayerFit) -> tuple[Tensor, Tensor | None]:
        """Return the weight without what is pruned, and its mean output for the bias."""
        left = wide(layer.left)
        return left, missing(wide(layer.weight) - left, layer.statistics.mean)
