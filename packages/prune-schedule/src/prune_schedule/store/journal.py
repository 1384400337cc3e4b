"""A study in a file to which every trial is appended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from prune_core import PruneError
from prune_core.files import make_folder

__all__ = ["open_journal"]


def open_journal(path: Path) -> JournalStorage:
    """Return a storage that appends to a file and survives a killed process."""
    make_folder(path.parent)
    lock: Any = _Lock(path.with_suffix(".lock"))
    lock.acquire()
    _cut_unfinished_line(path)
    lock.release()
    try:
        _check_last_line(path)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        raise PruneError(
            f"The study in {path} cannot be read ({type(error).__name__}: {error}). Give another "
            "experiment_data_dir, or delete the file to start anew."
        ) from error


class _Lock:
    """A lock of the operating system, in the form in which Optuna wants one.

    Optuna's own locks are files, which stay when their owner is killed; this one goes with it.
    """

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        """Wait until no other process has the lock."""
        self._lock.acquire(poll_interval=0.005)
        return True

    def release(self) -> None:
        """Unlock."""
        self._lock.release()


def _cut_unfinished_line(path: Path) -> None:
    """Take away what a process wrote of a line when the machine went down."""
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _check_last_line(path: Path) -> None:
    """Refuse a damaged last line, which Optuna would take for one being written."""
    if path.exists() and (lines := path.read_bytes().splitlines()):
        json.loads(lines[-1])
