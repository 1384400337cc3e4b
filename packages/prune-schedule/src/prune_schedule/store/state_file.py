"""The trials of a search in memory or in a JSON file, without Optuna."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from prune_core import ConfigError, PruneError
from prune_core.files import make_folder, replacing
from prune_schedule.store.history import Memory

__all__ = ["StateFile", "check_same_run"]

FORMAT = "prune-search-1"


class StateFile(Memory):
    """Trials in memory and, if there is a path, in a file that is always complete.

    Args:
        path: The file, or None.
        run: What the search does, as plain data; a file of another search is refused.
        known: Trials to begin with.
    """

    def __init__(
        self,
        path: str | PathLike[str] | None,
        run: Mapping[str, Any],
        known: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self.path, self.run = None if path is None else Path(path), dict(run)
        if self.path is not None and self.path.exists():
            known = _read(self.path, self.run)
        super().__init__(known)

    def add(self, trial: dict[str, Any]) -> dict[str, Any]:
        """Add a trial, and return it."""
        super().add(trial)
        if self.path is not None:
            states = {"format": FORMAT, "run": self.run, "trials": list(self._trials.values())}
            make_folder(self.path.parent)
            with replacing(self.path) as file:
                file.write(json.dumps(states).encode())
        return trial


def check_same_run(what: str, kept: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Refuse the trials of another search."""
    for key, value in run.items():
        if kept.get(key) != value:
            raise ConfigError(
                f"{what} is of a search whose {key} is {kept.get(key)!r}; here it is {value!r}. "
                "Give another one, or none to start anew."
            )


def _read(path: Path, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        states = json.loads(path.read_bytes())
        kept, trials = dict(states["run"]), [dict(trial) for trial in states["trials"]]
        known = states["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PruneError(
            f"checkpoint {path} cannot be read ({type(error).__name__}: {error}). Give another "
            "path, or delete the file to start anew."
        ) from error
    if not known:
        raise PruneError(
            f"checkpoint {path} is not one of a search of this version. Give another path, or "
            "delete the file to start anew."
        )
    check_same_run(f"checkpoint {path}", kept, run)
    return trials
