"""The trials of a search, kept where a search that starts again finds them.

A search is a function of its seed and of the scores so far. So its history is all the state it
has: it is replayed, and what has been evaluated already is not evaluated again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from prune_core import ConfigError, MissingDependencyError

try:
    import fcntl
except ImportError:  # not on Windows, where Optuna's own lock has to do
    fcntl = None  # type: ignore[assignment]

__all__ = ["History", "Memory", "Study", "open_history"]

FILE = "study.journal"


class History(Protocol):
    """What a search has tried."""

    def read(self) -> list[dict[str, Any]]:
        """Return all trials in their order."""

    def add(self, trial: Mapping[str, Any]) -> None:
        """Keep one more trial."""


class Memory:
    """Trials that last as long as the process."""

    def __init__(self) -> None:
        self._trials: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        """Return all trials in their order."""
        return list(self._trials)

    def add(self, trial: Mapping[str, Any]) -> None:
        """Keep one more trial."""
        self._trials.append(dict(trial))


class Study:
    """Trials in an Optuna study, which Optuna's dashboard and its plots show as any other.

    Args:
        storage: A storage object, or the URL of a database.
        name: The name of the study.
        maximize: Whether a higher score is better.
        run: What the search does, as plain data; a study of another search is refused.
    """

    def __init__(self, storage: Any, name: str, maximize: bool, run: Mapping[str, Any]) -> None:
        optuna = _optuna()
        self._optuna = optuna
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would announce the study
        try:
            self.study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction="maximize" if maximize else "minimize",
                load_if_exists=True,
            )
        finally:
            optuna.logging.set_verbosity(verbosity)
        kept = self.study.user_attrs.get("run")
        if kept is None:
            self.study.set_user_attr("run", dict(run))
            return
        for key, value in run.items():
            if kept.get(key) != value:
                raise ConfigError(
                    f"The study {name!r} is of a search whose {key} is {kept.get(key)!r}; here it "
                    f"is {value!r}. Give another experiment_data_dir or study_name, or delete the "
                    "study to start anew."
                )

    def read(self) -> list[dict[str, Any]]:
        """Return all trials in their order."""
        return [
            json.loads(trial.user_attrs["trial"])
            for trial in self.study.get_trials(deepcopy=False)
            if "trial" in trial.user_attrs
        ]

    def add(self, trial: Mapping[str, Any]) -> None:
        """Keep one more trial, complete from the beginning: a process that dies leaves no half."""
        optuna, score = self._optuna, trial["score"]
        sparsities: Mapping[str, float] = trial["sparsities"]
        state = optuna.trial.TrialState
        self.study.add_trial(
            optuna.trial.create_trial(
                state=state.FAIL if score is None else state.COMPLETE,
                value=score,
                params=dict(sparsities),
                distributions={
                    name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in sparsities
                },
                user_attrs={"trial": json.dumps(dict(trial))},
            )
        )


def open_history(
    folder: str | PathLike[str] | None,
    storage: Any,
    name: str,
    maximize: bool,
    run: Mapping[str, Any],
) -> History:
    """Return a history in a database, in a folder, or, if neither is given, in memory."""
    if storage is not None and folder is not None:
        raise ConfigError("experiment_data_dir and storage both say where the study is; keep one.")
    if storage is not None:
        return Study(storage, name, maximize, run)
    if folder is not None:
        return Study(_journal(Path(folder)), name, maximize, run)
    return Memory()


def _journal(folder: Path) -> Any:
    """Return a storage that appends to a file, and that a killed process leaves usable."""
    optuna = _optuna()
    journal = optuna.storages.journal
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE

    lock: Any = _Lock(path.with_suffix(".lock")) if fcntl is not None else None
    if lock is not None:
        lock.acquire()
        _cut_unfinished_line(path)
        lock.release()
    return optuna.storages.JournalStorage(journal.JournalFileBackend(str(path), lock_obj=lock))


class _Lock:
    """A lock of the operating system, in the form in which Optuna wants one.

    Optuna's own locks are files, which stay when their owner is killed; this one goes with it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def acquire(self) -> bool:
        """Wait until no other process has the lock."""
        self._file = self.path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        """Let others have it."""
        self._file.close()


def _cut_unfinished_line(path: Path) -> None:
    """Take away what a process wrote of a line when the machine went down."""
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingDependencyError(
            "Keeping a search needs Optuna: `pip install 'prune-schedule[search]'`. Without "
            "experiment_data_dir and storage a search runs in memory."
        ) from None
    return optuna
