"""Single weights by how much the loss depends on their being there."""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
from torch import nn

from prune_filter.calibrated import CalibratedPruner
from prune_filter.calibration import Calibrate, calibration
from prune_toolkit import (
    DataCollector,
    GradientCollector,
    MetricsCalculator,
    SparsityAllocator,
    StraightMetricsCalculator,
)
from prune_toolkit.basic import MoreOptions
from prune_toolkit.modes import allocator_for
from prune_toolkit.oneshot import ConfigList

__all__ = ["SNIPPruner"]


class SNIPPruner(CalibratedPruner):
    """Prunes the single weights to whose presence the loss is least sensitive.

    `score = |Σ_batches g · w|`. Meant for a model that has just been initialised, and one batch.

    Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity,
    https://arxiv.org/abs/1810.02340

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        calibrate: Takes the model, runs it and calls `backward()` on the loss. The model is put
            back afterwards.
        batches: How many batches count, or None for all.
        mode: `"global"` ranks the weights of all modules of an entry together, `"normal"` those
            of each module.
        **options: `reconstruct=` and what else `BasicPruner` takes.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_filter import SNIPPruner
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> pruner = SNIPPruner(
        ...     model,
        ...     [{"total_sparsity": 0.75, "op_types": ["Linear"]}],
        ...     calibrate=lambda model: model(torch.randn(16, 4)).square().mean().backward(),
        ... )
        >>> model, masks = pruner.compress()
        >>> sum(int(mask["weight"].sum()) for mask in masks.values())
        12
    """

    modes: ClassVar[tuple[str, ...]] = ("global", "normal")
    needs_labels: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        calibrate: Calibrate | None = None,
        batches: int | None = None,
        mode: str = "global",
        **options: Unpack[MoreOptions],
    ) -> None:
        given = calibration(self, calibrate, batches)
        super().__init__(model, config_list, given.for_statistics(), mode, **options)

    def collector(self) -> DataCollector:
        """Sum the products over the backward passes."""
        return GradientCollector(self, self.calibrate, self.batches, torch.mul)

    def calculator(self) -> MetricsCalculator:
        """Take the sums for the scores; their signs go when they are compared."""
        return StraightMetricsCalculator(copy=False)

    def allocator(self) -> SparsityAllocator:
        """Rank absolute values."""
        return allocator_for(self, self.mode, channels=False, transform=torch.abs)
