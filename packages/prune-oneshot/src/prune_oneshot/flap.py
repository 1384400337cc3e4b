"""Coupled channels that vary little, with biases for what they give on average."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn

from prune_core.pruning.pruner import ConfigList
from prune_oneshot.units import UnitCollector, UnitPruner
from prune_toolkit import DataCollector, Statistics
from prune_toolkit.basic import Options

__all__ = ["FLAPPruner", "FluctuationCollector"]


class FluctuationCollector(UnitCollector):
    """Sums, for each unit, the variances of its activations times the squares of next weights."""

    def of(self, statistics: Statistics) -> Tensor:
        """Return the variance of each feature."""
        return statistics.variance


class FLAPPruner(UnitPruner):
    """Prunes the coupled channels that fluctuate least, and moves their mean into biases.

    `score(u) = Σ var(X[j]) · ‖W[:, j]‖²`, over all features j of unit u in all layers that read
    it, with their inputs X and weights W. What a channel gives on average is given by the next
    bias from then on, so only what varies is lost; `reconstruct` is `"bias"` unless given.

    An et al., Fluctuation-based Adaptive Structured Pruning for Large Language Models,
    https://arxiv.org/abs/2312.11983

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: `"dependency_aware"` takes the same ratio of each group of units, `"global"` ranks
            the units of all groups together, by scores over the mean of their group.
        dummy_input: What the model is traced with; what `calibrate` calls it with first, unless
            given.
        **options: `calibrate=`, which is needed, and what else `BasicPruner` takes.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_oneshot import FLAPPruner
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2, bias=False))
        >>> inputs = torch.randn(16, 4)
        >>> pruner = FLAPPruner(
        ...     model,
        ...     [{"sparsity": 0.5, "op_names": ["0"]}],
        ...     calibrate=lambda model: model(inputs),
        ... )
        >>> model, masks = pruner.compress()
        >>> int(masks["0"]["bias"].sum()), model[2].bias.shape
        (3, torch.Size([2]))
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        mode: str = "dependency_aware",
        dummy_input: Any = None,
        **options: Unpack[Options],
    ) -> None:
        options.setdefault("reconstruct", "bias")
        super().__init__(model, config_list, mode, dummy_input, **options)

    def collector(self) -> DataCollector:
        """Measure how what the readers of each unit get fluctuates."""
        return FluctuationCollector(self, *self.calibration_of([]))
