"""A folder with the results and the trials of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_toolkit import results

if TYPE_CHECKING:
    from prune_schedule.run.delegating import DelegatingPruner

__all__ = ["ResultFolder"]


class ResultFolder(results.ResultFolder):
    """Writes results and `trials.json`.

    Args:
        path: The folder, or None to write nothing.
        keep_all: Whether each round is written, or only the result.
    """

    def add(self, number: int, pruner: DelegatingPruner) -> None:
        """Write the result of a round."""
        self.add_round(number, pruner, pruner.reached_config)

    def finish(self, pruner: DelegatingPruner) -> None:
        """Write the result and the trials."""
        folder = self.add_result(pruner, pruner.reached_config)
        if folder is not None:
            pruner.trials.save(folder / "trials.json")
