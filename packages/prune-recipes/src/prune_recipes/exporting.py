"""`prune export`: the small model of a run, for other tools."""

from __future__ import annotations

from pathlib import Path

import prune_core
from prune_core.errors import ConfigError
from prune_recipes.code import modules_beside
from prune_recipes.steps import Run

__all__ = ["export_run"]


def export_run(run: Run, file: Path, format_: str | None) -> Path:
    """Write the model that a run ended with.

    Raises:
        ConfigError: The run has not ended.
    """
    if not run.folder.finished:
        raise ConfigError(f"{run.folder.path} is not finished: let `prune run` finish it first.")
    last = [step for step in run.steps if step.changes][-1]
    with modules_beside(run.beside):
        return prune_core.export(run.model_after(last), file, run.inputs, format=format_)
