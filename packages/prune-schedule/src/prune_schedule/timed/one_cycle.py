"""A one-cycle schedule."""

from __future__ import annotations

from typing import ClassVar

from prune_schedule.timed.gradual import GradualPruner

__all__ = ["OneCyclePruner"]


class OneCyclePruner(GradualPruner):
    """Prunes along one S-shaped curve: slowly, fast, slowly.

    A logistic curve from the initial sparsity to the final one. All arguments are those of
    `GradualPruner`.

    Hubens et al., One-Cycle Pruning: Pruning ConvNets Under a Tight Training Budget,
    https://arxiv.org/abs/2107.02086
    """

    default_curve: ClassVar[str] = "one_cycle"
