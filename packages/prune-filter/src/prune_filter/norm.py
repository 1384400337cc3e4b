"""Output channels by the norm of their weights."""

from __future__ import annotations

from typing import ClassVar

from prune_toolkit import (
    DataCollector,
    MetricsCalculator,
    NormMetricsCalculator,
    WeightDataCollector,
)
from prune_toolkit.oneshot import ChannelPruner

__all__ = [
    "L1FilterPruner",
    "L1NormPruner",
    "L2FilterPruner",
    "L2NormPruner",
    "NormPruner",
]


class NormPruner(ChannelPruner):
    """Prunes the output channels whose weights have the smallest norm; subclasses say which."""

    p: ClassVar[float]

    def collector(self) -> DataCollector:
        """Gather the weights, a row for each output channel."""
        return WeightDataCollector(self, channels=True)

    def calculator(self) -> MetricsCalculator:
        """Take the norm of each row."""
        return NormMetricsCalculator(dim=0, p=self.p)


class L1NormPruner(NormPruner):
    """Prunes the output channels whose weights are smallest in L1 norm.

    `score[i] = Σ |w[i]|`, over all weights of output channel i.

    Li et al., Pruning Filters for Efficient ConvNets, https://arxiv.org/abs/1608.08710

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: `"normal"` ranks the channels of each module, `"dependency_aware"` those of modules
            that can only lose the same channels together.
        dummy_input: What the model is traced with in the mode `"dependency_aware"`.

    Example:
        >>> from torch import nn
        >>> from prune_filter import L1NormPruner
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        >>> pruner = L1NormPruner(model, [{"sparsity": 0.5, "op_types": ["Conv2d"]}])
        >>> model, masks = pruner.compress()
        >>> [int(mask["bias"].sum()) for mask in masks.values()]
        [4, 2]
    """

    p = 1.0


class L2NormPruner(NormPruner):
    """Prunes the output channels whose weights are smallest in L2 norm.

    `score[i] = sqrt(Σ w[i]²)`, over all weights of output channel i.

    Li et al., Pruning Filters for Efficient ConvNets, https://arxiv.org/abs/1608.08710

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: `"normal"` ranks the channels of each module, `"dependency_aware"` those of modules
            that can only lose the same channels together.
        dummy_input: What the model is traced with in the mode `"dependency_aware"`.

    Example:
        >>> from torch import nn
        >>> from prune_filter import L2NormPruner
        >>> model = nn.Sequential(nn.Linear(8, 10))
        >>> pruner = L2NormPruner(model, [{"sparsity": 0.3, "op_types": ["Linear"]}])
        >>> model, masks = pruner.compress()
        >>> int(masks["0"]["bias"].sum())
        7
    """

    p = 2.0


L1FilterPruner = L1NormPruner
L2FilterPruner = L2NormPruner
