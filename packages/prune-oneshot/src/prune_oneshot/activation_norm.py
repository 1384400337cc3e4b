"""Coupled channels by what they send on: the size of the activation times that of the weights."""

from __future__ import annotations

from torch import Tensor

from prune_oneshot.units import UnitCollector, UnitPruner
from prune_toolkit import DataCollector, Statistics

__all__ = ["ActivationNormCollector", "ActivationNormPruner"]


class ActivationNormCollector(UnitCollector):
    """Sums, for each unit, the mean squares of its activations times those of the next weights."""

    def of(self, statistics: Statistics) -> Tensor:
        """Return the mean square of each feature."""
        return statistics.mean_square


class ActivationNormPruner(UnitPruner):
    """Prunes the coupled channels of which least arrives in the layers that read them.

    `score(u) = Σ mean(X[j]²) · ‖W[:, j]‖²`, over all features j of unit u in all layers that
    read it, with their inputs X and weights W: the square of ‖x‖·‖w_out‖, where a unit has one
    feature and one reader. Without correlations it is what the next outputs lose.

    Muralidharan et al., Compact Language Models via Pruning and Knowledge Distillation, section
    2.2, where activations are ranked alone, https://arxiv.org/abs/2407.14679

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: `"dependency_aware"` takes the same ratio of each group of units, `"global"` ranks
            the units of all groups together, by scores over the mean of their group.
        dummy_input: What the model is traced with; what `calibrate` calls it with first, unless
            given.
        **options: `calibrate=`, which is needed, `reconstruct=`, and what else `BasicPruner`
            takes.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_oneshot import ActivationNormPruner
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        >>> inputs = torch.randn(16, 4)
        >>> pruner = ActivationNormPruner(
        ...     model,
        ...     [{"sparsity": 0.5, "op_names": ["0"]}],
        ...     calibrate=lambda model: model(inputs),
        ... )
        >>> model, masks = pruner.compress()
        >>> int(masks["0"]["bias"].sum())
        3
    """

    def collector(self) -> DataCollector:
        """Measure what the readers of each unit get."""
        return ActivationNormCollector(self, *self.calibration_of([]))
