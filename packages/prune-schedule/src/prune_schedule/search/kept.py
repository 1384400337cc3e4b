"""Where a search is kept, and how it goes on from there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from prune_core import ConfigError, Pruner
from prune_schedule.run.processes import is_first
from prune_schedule.search.trial_runner import TrialRunner
from prune_schedule.store.history import History, open_history
from prune_speedup.search.trials_file import (
    Memory,
    StateFile,
    check_same_run,
    digest_of,
    run_of,
)

__all__ = ["KeptSearch"]


class KeptSearch(TrialRunner):
    """Keeps its trials in memory, in a file, in a folder or in a database.

    The trials are all the state that there is: a search that starts again is sent the scores that
    are known already.

    Attributes:
        experiment_data_dir: A folder for an Optuna study, or None.
        storage: The URL of a database for it instead, or None.
        study_name: The name of the study.
        checkpoint: A file to keep the trials in instead, without Optuna, or None.
        log_dir: A folder for the result, or None.
    """

    experiment_data_dir: str | PathLike[str] | None
    storage: Any
    study_name: str
    checkpoint: str | PathLike[str] | None
    log_dir: str | PathLike[str] | None
    pruning_algorithm: str | Callable[..., Any]
    config_list: Sequence[Mapping[str, Any]]
    _run: dict[str, Any] | None
    _known: list[dict[str, Any]]

    def _open_history(self) -> History:
        """Open the study; of several processes, the first keeps it and tells the others."""
        if not is_first():
            return Memory()
        if self.checkpoint is not None and (self.experiment_data_dir or self.storage) is not None:
            raise ConfigError("checkpoint and a study both keep the search; keep one of the two.")
        if self.experiment_data_dir is None and self.storage is None:
            return StateFile(self.checkpoint, self._identity(), self._known)
        return open_history(
            self.experiment_data_dir,
            self.storage,
            self.study_name,
            self.optimize_mode == "maximize",
            self._identity(),
        )

    def _weights_file(self) -> Path | None:
        """Return where a search that trains keeps weights: only where its trials are kept too."""
        if self.checkpoint is not None:
            return Path(f"{self.checkpoint}.weights")
        folder = self.experiment_data_dir
        if folder is None and self.storage is not None:
            folder = self.log_dir
        return None if folder is None else Path(folder) / "weights.pt"

    def _identity(self) -> dict[str, Any]:
        # Of the weights that the search began with, also when it has trained them since.
        if self._run is not None:
            return self._run
        self._run = run_of(
            self,
            algorithm=self.pruning_algorithm,
            config_list=self.config_list,
            optimize_mode=self.optimize_mode,
            seed=self.seed,
            weights=digest_of(_bytes_of(self.one_shot)),
            target=self.target,
            settings=self.settings,
        )
        return self._run

    def state_dict(self) -> dict[str, Any]:
        """Return what has been tried, as plain data; all else follows from it."""
        run = self._identity()
        return {"run": json.dumps(run), "trials": json.dumps(self.trials or self._known)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state with the next `run()`; it must be one of the same search."""
        missing = {"run", "trials"} - set(state_dict)
        if missing:
            raise ConfigError(
                f"The state has no {min(missing)!r}; it is not what state_dict() of a search "
                "returned."
            )
        check_same_run("The state", json.loads(state_dict["run"]), self._identity())
        self._known = json.loads(state_dict["trials"])


def _bytes_of(pruner: Pruner) -> Iterator[memoryview]:
    """Yield the bytes of each weight."""
    for wrapper in pruner.get_modules_wrapper().values():
        weight = wrapper.module.get_parameter(wrapper.target).detach()
        yield weight.cpu().contiguous().flatten().view(torch.uint8).numpy().data
