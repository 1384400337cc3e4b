"""Single weights by their absolute value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Unpack

import torch
from torch import nn

from prune_core.compat import understands
from prune_toolkit import (
    DataCollector,
    MetricsCalculator,
    SparsityAllocator,
    StraightMetricsCalculator,
    WeightDataCollector,
)
from prune_toolkit.basic import Options
from prune_toolkit.compat import ONE_SHOT
from prune_toolkit.modes import allocator_for
from prune_toolkit.oneshot import ConfigList, OneShotPruner

__all__ = ["LevelPruner"]


class LevelPruner(OneShotPruner):
    """Prunes the single weights that are smallest in absolute value.

    `score = |w|`, one for each weight of any module that has a weight.

    Han et al., Learning both Weights and Connections for Efficient Neural Networks,
    https://arxiv.org/abs/1506.02626

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: `"normal"` ranks the weights of each module, `"global"` those of all modules of an
            entry together, `"block"` those of each block, such as a layer of a transformer,
            `"row"` those of each output, and `"balance"` those of each block of a weight, so
            that all lose equally. `"owl"` takes less from blocks with many outliers.
        balance_gran: For `"balance"`, the shape of a block, matched to the last axes.
        **options: `reconstruct=`, `calibrate=` and what else `BasicPruner` takes.

    Example:
        >>> from torch import nn
        >>> from prune_filter import LevelPruner
        >>> model = nn.Sequential(nn.Linear(4, 2))
        >>> pruner = LevelPruner(model, [{"sparsity": 0.5, "op_types": ["Linear"]}])
        >>> model, masks = pruner.compress()
        >>> int(masks["0"]["weight"].sum())
        4
    """

    modes: ClassVar[tuple[str, ...]] = ("normal", "global", "balance", "row", "block", "owl")

    @understands(ONE_SHOT)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        mode: str = "normal",
        balance_gran: Sequence[int] | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.balance_gran = balance_gran
        super().__init__(model, config_list, mode, **options)

    def collector(self) -> DataCollector:
        """Gather the weights."""
        return WeightDataCollector(self)

    def calculator(self) -> MetricsCalculator:
        """Take the weights for the scores; their signs go when they are compared."""
        return StraightMetricsCalculator(copy=False)

    def allocator(self) -> SparsityAllocator:
        """Rank absolute values without ever holding all of them."""
        return allocator_for(
            self,
            self.mode,
            channels=False,
            transform=torch.abs,
            balance_gran=self.balance_gran,
        )
