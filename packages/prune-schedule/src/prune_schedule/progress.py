"""What the user sees while a search goes on: a bar in a terminal, log lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prune_core.progress import Progress as Shown
from prune_schedule.processes import is_first

__all__ = ["Progress"]


class Progress(Shown):
    """Shows the trials of a search as they come.

    Args:
        title: What is running.
        total: How many trials there will be, or None.
    """

    def __init__(self, title: str, total: int | None) -> None:
        super().__init__(title, total, step="trial", shown=is_first(), logger="prune_schedule")

    def advance(self, trial: Mapping[str, Any], best: float | None) -> None:
        """Show one more trial, and the best score so far."""
        self.done(
            f"sparsity {trial['sparsity']:.1%}  score {_shown(trial['score'])}  best {_shown(best)}"
        )


def _shown(score: float | None) -> str:
    return "none" if score is None else f"{score:.4g}"
