"""A folder with the results of a run, as older releases laid it out."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from prune_core.files import replacing
from prune_schedule.processes import is_first

if TYPE_CHECKING:
    from prune_schedule.through import ThroughPruner

__all__ = ["ResultFolder"]


class ResultFolder:
    """Writes `best_result/` and, if asked, `intermediate_result/<round>/`.

    Each gets `model.pth`, a state dict with zeros where masked, `masks.pth`, which
    `prune_core.load_masks` reads, and `config_list.json`.

    Args:
        path: The folder, or None to write nothing.
        keep_all: Whether each round is written, or only the result.
    """

    def __init__(self, path: str | PathLike[str] | None, keep_all: bool) -> None:
        self.path, self.keep_all = None if path is None else Path(path), keep_all

    def add(self, number: int, pruner: ThroughPruner) -> None:
        """Write what a round ended with."""
        if self.path is not None and self.keep_all:
            _write(self.path / "intermediate_result" / str(number), pruner)

    def finish(self, pruner: ThroughPruner) -> None:
        """Write the result, and what was tried on the way."""
        if self.path is not None and is_first():
            _write(self.path / "best_result", pruner)
            pruner.trials.save(self.path / "trials.json")


def _write(folder: Path, pruner: ThroughPruner) -> None:
    if not is_first():
        return
    pruner.export_model(folder / "model.pth", folder / "masks.pth")
    *_, config = pruner.get_best_result()
    with replacing(folder / "config_list.json") as file:
        file.write(json.dumps(config, indent=2).encode())
