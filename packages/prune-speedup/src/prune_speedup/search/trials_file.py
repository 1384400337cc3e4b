"""The trials of a search in memory or in a JSON file, and what says of which search they are.

A search is a function of its settings and of the scores so far. So its trials are all the state it
has: a search that starts again is sent the scores that are known already.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from prune_core.errors import ConfigError, PruneError
from prune_core.files import make_folder, replacing

__all__ = [
    "Memory",
    "StateFile",
    "check_same_plan",
    "check_same_run",
    "digest_of",
    "run_of",
    "weights_ahead",
]

FORMAT = "prune-search-1"


class Memory:
    """Trials that last as long as the process.

    Args:
        trials: Those to begin with.
    """

    def __init__(self, trials: Iterable[Mapping[str, Any]] = ()) -> None:
        self._trials = {trial["trial"]: dict(trial) for trial in trials}

    def known(self, numbers: Iterable[int]) -> dict[int, dict[str, Any]]:
        """Return which of these trials have been made."""
        return {number: self._trials[number] for number in numbers if number in self._trials}

    def claim(self, numbers: Iterable[int]) -> int | None:
        """Choose the first."""
        return next(iter(numbers), None)

    def add(self, trial: dict[str, Any]) -> dict[str, Any]:
        """Add a trial, and return it."""
        self._trials[trial["trial"]] = trial
        return trial

    def release(self, number: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


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


def check_same_plan(trial: Mapping[str, Any], plan: Mapping[str, float]) -> None:
    """Refuse a trial that is not of the plan that a search tries now."""
    if trial["sparsities"] != plan:
        raise PruneError(
            f"Trial {trial['trial']} of the study has other sparsities than this search tries now: "
            "the seed or prune has changed. Give another experiment_data_dir or study_name, or "
            "delete the study."
        )


def run_of(
    search: object,
    *,
    algorithm: Any,
    config_list: Iterable[Any],
    optimize_mode: str,
    seed: int,
    weights: str,
    target: Mapping[str, float] | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return all that the trials of a search depend on, as plain data.

    Args:
        search: The search.
        algorithm: The name of its one-shot pruner, or a class.
        config_list: The rules.
        optimize_mode: Whether a higher score is better.
        seed: Of its random numbers.
        weights: The digest of the weights that it began with.
        target: What may be left of the model instead of what the rules say.
        settings: What its plans depend on besides.
    """
    run = {
        "search": type(search).__name__,
        "pruning_algorithm": algorithm if isinstance(algorithm, str) else algorithm.__name__,
        "config_list": list(config_list),
        "optimize_mode": optimize_mode,
        "seed": seed,
        "weights": weights,
        **({} if target is None else {"target": dict(target)}),
        **settings,
    }
    plain: dict[str, Any] = json.loads(json.dumps(run, default=str))
    return plain


def digest_of(weights: Iterable[bytes | memoryview]) -> str:
    """Return a few letters that are others for other weights."""
    digest = hashlib.blake2b(digest_size=8)
    for weight in weights:
        digest.update(weight)
    return digest.hexdigest()


def weights_ahead(path: Path | None) -> PruneError:
    """Return what to raise where weights come from a later trial than those that are known."""
    return PruneError(
        f"{path} has weights of a later trial than those that are known: trials have been lost. "
        "Give another place, or delete this file and the trials to start anew."
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
