"""A folder with the results of a run, as older releases laid it out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from prune_core.files import replacing
from prune_core.masking import PrunerModuleWrapper
from prune_core.progress.log import is_first
from prune_core.pruning.pruner import Pruner

__all__ = ["ResultFolder", "reached_config"]


def reached_config(
    wrappers: Mapping[str, PrunerModuleWrapper], sparsities: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Return what has been reached, as a `config_list` with an entry for each module.

    Args:
        wrappers: The wrapped modules, by name.
        sparsities: The sparsity of each; what its mask hides unless given.
    """
    if sparsities is None:
        sparsities = {
            name: wrapper.masked_count(wrapper.target) / wrapper.parameter(wrapper.target).numel()
            for name, wrapper in wrappers.items()
        }
    return [
        {
            "op_names": [name],
            "op_types": wrappers[name].config["op_types"],
            "total_sparsity": sparsity,
        }
        for name, sparsity in sparsities.items()
    ]


class ResultFolder:
    """Writes `best_result/` and, if asked, `intermediate_result/<round>/`.

    Each gets `model.pth`, a state dict with zeros where masked, `masks.pth`, which
    `prune_core.load_masks` reads, and `config_list.json`. Of several processes, the first writes.

    Args:
        path: The folder, or None to write nothing.
        keep_all: Whether each round is written, or only the result.
    """

    def __init__(self, path: str | PathLike[str] | None, keep_all: bool = False) -> None:
        self.path, self.keep_all = None if path is None else Path(path), keep_all

    def add_round(
        self, number: int, pruner: Pruner, config_list: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write what a round ended with.

        Args:
            number: The number of the round.
            pruner: The pruner, with the masks of the round in force.
            config_list: What has been reached.
        """
        if self.path is not None and self.keep_all:
            _write(self.path / "intermediate_result" / str(number), pruner, config_list)

    def add_result(self, pruner: Pruner, config_list: Sequence[Mapping[str, Any]]) -> Path | None:
        """Write the result; return the folder if this process writes to one."""
        if self.path is None or not is_first():
            return None
        _write(self.path / "best_result", pruner, config_list)
        return self.path


def _write(folder: Path, pruner: Pruner, config_list: Sequence[Mapping[str, Any]]) -> None:
    if not is_first():
        return
    pruner.export_model(folder / "model.pth", folder / "masks.pth")
    with replacing(folder / "config_list.json") as file:
        file.write(json.dumps(list(config_list), indent=2).encode())
