"""Who works on which trial, so that several workers of one study never do the same twice.

A worker holds a lock for the trial that it makes. Locks belong to processes: when a worker is
killed, the operating system or the database server frees its locks, and another worker makes the
trial again. So nothing has to be written down for a trial under way, and there is no time after
which a worker counts as dead.

Processes that the worker has forked, to load data for instance, share its lock files before
filelock 4: with an older one, a lock is free when those have ended too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from prune_core import PruneError
from prune_core.files import make_folder

__all__ = ["SERVERS", "NoLocks", "TrialLocks", "locks_in_folder", "locks_on_server"]


class TrialLocks(Protocol):
    """Locks by the numbers of trials."""

    def take(self, number: int) -> bool:
        """Lock a trial, and return whether that was possible."""

    def release(self, number: int) -> None:
        """Unlock a trial."""

    def close(self) -> None:
        """Unlock all trials."""


class NoLocks:
    """For a study that only one worker uses."""

    def take(self, number: int) -> bool:
        """Say yes."""
        return True

    def release(self, number: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class _FolderLocks:
    """One lock file for each trial; the files stay empty, and stay.

    Args:
        folder: Where they are.
        study: The name of the study; a folder may have the locks of several.
    """

    def __init__(self, folder: Path, study: str) -> None:
        make_folder(folder)
        self._folder, self._study = folder, _digest(study).hex()
        self._held: dict[int, FileLock] = {}

    def take(self, number: int) -> bool:
        # Held by this process, which then asks from another thread or through another search.
        if number in self._held:
            return False
        lock = FileLock(self._folder / f"{self._study}-{number}.lock", thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        except NotImplementedError as error:
            raise PruneError(
                f"{self._folder} is on a file system without locks, so several workers cannot "
                "share a search there. Keep it on a local disk, or in a database: storage=."
            ) from error
        self._held[number] = lock
        return True

    def release(self, number: int) -> None:
        # Removing the file would let two workers lock two files of one name.
        if (lock := self._held.pop(number, None)) is not None:
            lock.release()

    def close(self) -> None:
        for number in list(self._held):
            self.release(number)


class _ServerLocks:
    """Locks that a database server keeps for as long as a connection lasts.

    Args:
        ask: Asks the server, always over the same connection, and returns the one answer.
        dialect: Whose locks they are.
        study: The name of the study; a server has one set of locks for all.
    """

    def __init__(self, ask: Callable[..., Any], dialect: str, study: str) -> None:
        self._ask, self._study = ask, study
        self._take, self._release = SERVERS[dialect]

    def take(self, number: int) -> bool:
        return bool(self._ask(self._take, **self._name(number)))

    def release(self, number: int) -> None:
        self._ask(self._release, **self._name(number))

    def close(self) -> None:
        pass  # they end with the connection

    def _name(self, number: int) -> dict[str, Any]:
        digest = _digest(f"{self._study}/{number}")
        if ":name" in self._take:
            return {"name": f"prune/{digest.hex()}"}
        return {"key": int.from_bytes(digest, signed=True)}


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


_MYSQL = ("SELECT GET_LOCK(:name, 0)", "SELECT RELEASE_LOCK(:name)")
SERVERS = {
    "postgresql": ("SELECT pg_try_advisory_lock(:key)", "SELECT pg_advisory_unlock(:key)"),
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
}


def locks_in_folder(folder: str | PathLike[str], study: str) -> TrialLocks:
    """Return locks for all processes that see a folder, on any machine."""
    return _FolderLocks(Path(folder), study)


def locks_on_server(ask: Callable[..., Any], dialect: str, study: str) -> TrialLocks:
    """Return locks for all processes that use a database server."""
    return _ServerLocks(ask, dialect, study)
