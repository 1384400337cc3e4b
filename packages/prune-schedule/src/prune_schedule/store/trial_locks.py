"""Who works on which trial, so that several workers of one study never do the same twice.

A claim is a lock that goes with its owner: when a worker is killed, its claims are free at once,
and another worker makes the trial again. So nothing has to be written down for a trial under way,
and there is no time after which a worker counts as dead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

try:
    import fcntl
except ImportError:  # not on Windows, where one worker at a time may use a study
    fcntl = None  # type: ignore[assignment]

__all__ = ["SERVERS", "Claims", "Nobody", "claims_in_file", "claims_on_server"]


class Claims(Protocol):
    """Locks by the numbers of trials."""

    def take(self, number: int) -> bool:
        """Claim a trial, and return whether that was possible."""

    def release(self, number: int) -> None:
        """Let others have it."""

    def close(self) -> None:
        """Let others have everything."""


class Nobody:
    """The claims of a study that nobody else works on."""

    def take(self, number: int) -> bool:
        """Claim a trial."""
        return True

    def release(self, number: int) -> None:
        """Let others have it."""

    def close(self) -> None:
        """Let others have everything."""


class _FileClaims:
    """The lock on byte n of a file is the claim of trial n; the file stays empty."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")

    def take(self, number: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, number: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    def close(self) -> None:
        self._file.close()


class _ServerClaims:
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
        pass  # the connection takes them along

    def _name(self, number: int) -> dict[str, Any]:
        digest = hashlib.blake2b(f"{self._study}/{number}".encode(), digest_size=8)
        if ":name" in self._take:
            return {"name": f"prune/{digest.hexdigest()}"}
        return {"key": int.from_bytes(digest.digest(), signed=True)}


_MYSQL = ("SELECT GET_LOCK(:name, 0)", "SELECT RELEASE_LOCK(:name)")
SERVERS = {
    "postgresql": ("SELECT pg_try_advisory_lock(:key)", "SELECT pg_advisory_unlock(:key)"),
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
}


def claims_in_file(path: str | PathLike[str]) -> Claims:
    """Return claims for all processes that see a file, on any machine."""
    return Nobody() if fcntl is None else _FileClaims(Path(path))


def claims_on_server(ask: Callable[..., Any], dialect: str, study: str) -> Claims:
    """Return claims for all processes that use a database server."""
    return _ServerClaims(ask, dialect, study)
