"""A linear schedule: the same number of weights in each step."""

from __future__ import annotations

from typing import ClassVar

from prune_schedule.timed.gradual import GradualPruner

__all__ = ["LinearPruner"]


class LinearPruner(GradualPruner):
    """Prunes the same number of weights in each step.

    `s(t) = s_i + (s_f − s_i) · t/n`, from the initial sparsity s_i to the final s_f. All arguments
    are those of `GradualPruner`.
    """

    default_curve: ClassVar[str] = "linear"
