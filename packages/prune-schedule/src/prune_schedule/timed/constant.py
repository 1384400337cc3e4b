"""The final sparsity at once, then training under constant masks."""

from __future__ import annotations

from typing import ClassVar

from prune_schedule.timed.gradual import GradualPruner

__all__ = ["ConstantPruner"]


class ConstantPruner(GradualPruner):
    """Prunes to the final sparsity at once; training continues under the same masks.

    `s(t) = s_f`. What other schedules are to be compared with. All arguments are those of
    `GradualPruner`.
    """

    default_curve: ClassVar[str] = "constant"
