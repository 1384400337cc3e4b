"""A study in a database."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from prune_core import ConfigError, MissingDependencyError, PruneError
from prune_schedule.store.trial_locks import (
    SERVERS,
    NoLocks,
    TrialLocks,
    locks_in_folder,
    locks_on_server,
)

__all__ = ["Database"]


class Database:
    """A study in a database, with its locks.

    Args:
        storage: A URL, or a storage object of Optuna.
        study: The name of the study.
    """

    def __init__(self, storage: str | BaseStorage, study: str) -> None:
        self.study = study
        self._ours = isinstance(storage, str)
        self.storage = _opened(storage) if isinstance(storage, str) else storage
        self._line = _Line(self.storage.engine) if isinstance(self.storage, RDBStorage) else None

    def locks(self) -> TrialLocks:
        """Return the locks that keep workers from making the same trial."""
        if self._line is None:
            return NoLocks()
        engine = self._line.engine
        if engine.dialect.name in SERVERS:
            return locks_on_server(self._line.ask, engine.dialect.name, self.study)
        file = engine.url.database
        if engine.dialect.name == "sqlite" and file and file != ":memory:":
            return locks_in_folder(f"{file}.locks", self.study)
        return NoLocks()

    @property
    def count(self) -> Callable[[], int] | None:
        """A function that counts the trials, if that is cheaper than reading them."""
        line = self._line
        return None if line is None else lambda: int(line.ask(_COUNT, study=self.study))

    def close(self) -> None:
        """Close the connections that were opened here."""
        if self._line is not None:
            self._line.close()
        if self._ours and isinstance(self.storage, RDBStorage):
            self.storage.remove_session()
            self.storage.engine.dispose()


_COUNT = (
    "SELECT COUNT(*) FROM trials JOIN studies ON trials.study_id = studies.study_id "
    "WHERE studies.study_name = :study"
)


class _Line:
    """One connection for all queries; a lock of a server belongs to a connection."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._connection = self._connect()

    def _connect(self) -> Connection:
        connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        if self.engine.dialect.name == "postgresql":
            # A machine that has gone is missed after a minute and not after two hours.
            for setting, value in (("idle", 30), ("interval", 10), ("count", 3)):
                connection.exec_driver_sql(f"SET tcp_keepalives_{setting} = {value}")
        return connection

    def ask(self, question: str, **values: Any) -> Any:
        """Return the one value that a query gives."""
        try:
            return self._connection.execute(text(question), values).scalar()
        except DBAPIError:
            # Evaluations take hours, and connections break; what was locked is free then.
            self._connection.invalidate()
            self._connection.close()
            self._connection = self._connect()
            return self._connection.execute(text(question), values).scalar()

    def close(self) -> None:
        if self.engine.dialect.name in SERVERS:
            # Not back into the pool, where its locks would live on.
            self._connection.invalidate()
        self._connection.close()


class _Storage(RDBStorage):
    """Adds what belongs to a new trial without asking three questions about each piece of it.

    All trials of a search have the same parameters, and each trial is written once, complete.
    """

    def _set_trial_param_without_commit(
        self, session: Any, trial_id: int, name: str, value: float, distribution: Any, *_: Any
    ) -> None:
        written = distribution_to_json(distribution)
        session.add(
            models.TrialParamModel(
                trial_id=trial_id, param_name=name, param_value=value, distribution_json=written
            )
        )

    def _set_trial_attr_without_commit(
        self, session: Any, model: Any, trial_id: int, key: str, value: Any
    ) -> None:
        session.add(model(trial_id=trial_id, key=key, value_json=json.dumps(value)))


class _WriteAhead(sqlite3.Connection):
    """Appends to a log, which waits for no disk and is whole after a process has been killed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA journal_mode = WAL")
        self.execute("PRAGMA synchronous = NORMAL")


def _opened(url: str) -> RDBStorage:
    try:
        parsed = make_url(url)
        # A connection to a server may have been idle for as long as an evaluation takes.
        settings: dict[str, Any] = {"pool_pre_ping": True}
        if parsed.get_backend_name() == "sqlite":
            settings = {"connect_args": {"timeout": 60, "factory": _WriteAhead}}
        parsed.get_dialect()
    except ArgumentError as error:
        raise ConfigError(
            f"storage is {url!r}, which is not the URL of a database ({error}); write it like "
            "'sqlite:///search.db' or 'postgresql+psycopg://user@host/database'."
        ) from None
    shown = parsed.render_as_string(hide_password=True)
    for wait in (0.2, 0.5, 1.0, None):
        try:
            return _Storage(url, settings)
        except ImportError as error:
            raise MissingDependencyError(
                f"storage is {shown!r}, and its driver is missing ({error.__cause__ or error}); "
                "for PostgreSQL: `pip install 'psycopg[binary]'`."
            ) from None
        except DBAPIError as error:
            if wait is None:
                said = " ".join(str(error.orig).split())
                raise PruneError(f"The database {shown!r} cannot be used: {said}") from error
            time.sleep(wait)  # another worker may be making the same tables at this moment
    raise AssertionError
