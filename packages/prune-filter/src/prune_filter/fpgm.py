"""Output channels that others can stand in for."""

from __future__ import annotations

from prune_toolkit import (
    DataCollector,
    DistMetricsCalculator,
    MetricsCalculator,
    WeightDataCollector,
)
from prune_toolkit.oneshot import ChannelPruner

__all__ = ["FPGMPruner"]


class FPGMPruner(ChannelPruner):
    """Prunes the output channels that are nearest to the geometric median of their layer.

    `score[i] = Σ_j ‖w[i] − w[j]‖₂`, over all output channels j: a channel that many others
    resemble gets a small score, however large its weights are.

    He et al., Filter Pruning via Geometric Median for Deep Convolutional Neural Networks
    Acceleration, https://arxiv.org/abs/1811.00250

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: `"normal"` ranks the channels of each module, `"dependency_aware"` those of modules
            that can only lose the same channels together.
        dummy_input: What the model is traced with in the mode `"dependency_aware"`.

    Example:
        >>> from torch import nn
        >>> from prune_filter import FPGMPruner
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> pruner = FPGMPruner(model, [{"sparsity": 0.25, "op_types": ["Conv2d"]}])
        >>> model, masks = pruner.compress()
        >>> int(masks["0"]["bias"].sum())
        6
    """

    def collector(self) -> DataCollector:
        """Gather the weights, a row for each output channel."""
        return WeightDataCollector(self, channels=True)

    def calculator(self) -> MetricsCalculator:
        """Sum the distances of each row to all rows."""
        return DistMetricsCalculator(p=2, dim=0)
