"""Automated gradual pruning (AGP): fast at first, slow at the end."""

from __future__ import annotations

from typing import ClassVar

from prune_schedule.timed.gradual import GradualPruner

__all__ = ["AGPPruner"]


class AGPPruner(GradualPruner):
    """Automated gradual pruning: fast while much is redundant, slowly at the end.

    `s(t) = s_f + (s_i − s_f) · (1 − t/n)³`, from the initial sparsity s_i to the final s_f. All
    arguments are those of `GradualPruner`.

    Zhu and Gupta, To prune, or not to prune: exploring the efficacy of pruning for model
    compression, https://arxiv.org/abs/1710.01878
    """

    default_curve: ClassVar[str] = "cubic"
