"""The history of a search: its trials, kept for a search that is resumed.

A search is a function of its seed and of the scores so far. So its history is all the state it
has: it is replayed, and what has been evaluated already, by this process or by another worker, is
not evaluated again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prune_core import ConfigError, MissingDependencyError
from prune_speedup.search.trials_file import Memory

if TYPE_CHECKING:
    from prune_schedule.store.trial_locks import TrialLocks

__all__ = ["History", "Study", "need_optuna", "open_history"]

FILE, LOCKS = "study.journal", "locks"


class History(Protocol):
    """The trials of a search."""

    def known(self, numbers: Iterable[int]) -> dict[int, dict[str, Any]]:
        """Return which of these trials have been made."""

    def claim(self, numbers: Iterable[int]) -> int | None:
        """Lock one of these trials that no worker has, and return its number."""

    def add(self, trial: dict[str, Any]) -> dict[str, Any]:
        """Add a trial, unlock it, and return the trial that counts."""

    def release(self, number: int) -> None:
        """Unlock a trial that was not made."""

    def close(self) -> None:
        """Release all locks and close the storage."""


class Study:
    """Trials in an Optuna study.

    Args:
        storage: A storage object.
        name: The name of the study.
        maximize: Whether a higher score is better.
        locks: What keeps workers from doing the same trial.
        count: Returns how many trials there are; for where that is cheaper than reading them.
        let_go: Closes the storage.
    """

    def __init__(
        self,
        storage: Any,
        name: str,
        maximize: bool,
        locks: TrialLocks,
        count: Callable[[], int] | None = None,
        let_go: Callable[[], None] | None = None,
    ) -> None:
        self._optuna = optuna = need_optuna()
        with _silent(optuna):  # it would announce the study
            self.study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction="maximize" if maximize else "minimize",
                load_if_exists=True,
            )
        self.locks, self._count, self._let_go = locks, count, let_go
        self._read = self._counted = 0
        self._known: dict[int, dict[str, Any]] = {}

    def begin(self, run: Mapping[str, Any]) -> None:
        """Start the study or resume it.

        Args:
            run: What the search does, as plain data; a study of another search is refused.
        """
        if "run" not in self.study.user_attrs:
            self.study.set_user_attr("run", dict(run))
        # Read once more: another worker may have begun at the same time, and not with the same.
        kept = self.study.user_attrs["run"]
        for key, value in run.items():
            if kept.get(key) != value:
                raise ConfigError(
                    f"The study {self.study.study_name!r} is of a search whose {key} is "
                    f"{kept.get(key)!r}; here it is {value!r}. Give another experiment_data_dir "
                    "or study_name, or delete the study to start anew."
                )
        self._refresh()

    def _refresh(self) -> None:
        if self._count is not None and self._count() == self._counted:
            return
        trials = self.study.get_trials(deepcopy=False)
        # Trials are written when they are complete, so what has been read stays as it is.
        for trial in trials[self._read :]:
            if "trial" in trial.user_attrs:
                made = json.loads(trial.user_attrs["trial"])
                self._known.setdefault(made["trial"], made)
        self._read = self._counted = len(trials)

    def known(self, numbers: Iterable[int]) -> dict[int, dict[str, Any]]:
        """Return which of these trials have been made, as far as this process knows."""
        return {number: self._known[number] for number in numbers if number in self._known}

    def claim(self, numbers: Iterable[int]) -> int | None:
        """Lock one of these trials that no worker has, and read those that have been made."""
        claimed = next((number for number in numbers if self.locks.take(number)), None)
        # Read after the claim: what has not been written by now is not under way elsewhere.
        self._refresh()
        if claimed is not None and claimed in self._known:
            self.locks.release(claimed)
            return None
        return claimed

    def release(self, number: int) -> None:
        """Unlock a trial that was not made."""
        self.locks.release(number)

    def add(self, trial: dict[str, Any]) -> dict[str, Any]:
        """Add a trial, complete at once: a process that dies leaves no partial trial."""
        number = trial["trial"]
        self._refresh()
        # Another worker has made it only if this one was cut off and taken for dead.
        if number not in self._known:
            self._write(trial)
            self._known[number] = trial
            self._counted += 1
        self.locks.release(number)
        return self._known[number]

    def _write(self, trial: Mapping[str, Any]) -> None:
        optuna, score = self._optuna, trial["score"]
        sparsities: Mapping[str, float] = trial["sparsities"]
        state = optuna.trial.TrialState
        written = optuna.trial.create_trial(
            state=state.FAIL if score is None else state.COMPLETE,
            value=score,
            params=dict(sparsities),
            distributions={
                name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in sparsities
            },
            user_attrs={"trial": json.dumps(dict(trial))},
        )
        # A trial is written when it has ended, and Optuna takes that for its beginning.
        written.datetime_start -= timedelta(seconds=trial["seconds"])
        self.study.add_trial(written)

    def close(self) -> None:
        """Release all locks and close the storage."""
        self.locks.close()
        if self._let_go is not None:
            self._let_go()


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
        need_optuna()
        from prune_schedule.store.database import Database

        place = Database(storage, name)
        locks = place.locks()
        study = Study(place.storage, name, maximize, locks, place.count, place.close)
        return _begun(study, run)
    if folder is not None:
        need_optuna()
        from prune_schedule.store.journal import open_journal
        from prune_schedule.store.trial_locks import locks_in_folder

        journal = open_journal(Path(folder) / FILE)
        locks = locks_in_folder(Path(folder) / LOCKS, name)
        return _begun(Study(journal, name, maximize, locks), run)
    return Memory()


def _begun(study: Study, run: Mapping[str, Any]) -> Study:
    try:
        study.begin(run)
    except BaseException:
        study.close()
        raise
    return study


def need_optuna() -> Any:
    """Return Optuna, or say how to get it."""
    try:
        import optuna
    except ImportError:
        raise MissingDependencyError(
            "Keeping a search needs Optuna: `pip install 'prune-schedule[search]'`. Without "
            "experiment_data_dir and storage a search runs in memory."
        ) from None
    return optuna


@contextmanager
def _silent(optuna: Any) -> Iterator[None]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
