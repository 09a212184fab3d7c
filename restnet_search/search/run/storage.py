"""The SQLite file of a run, in which Optuna keeps the studies."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from restnet_search.errors import RunError
from restnet_search.files import disk_problem, replacing

__all__ = ["STUDY", "open_storage"]

STUDY = "restnet-search"
"""Name of the study of the trials; those of other stages begin with it."""

_TABLES = {"studies", "trials", "version_info", "alembic_version"}
_LOCK_TIMEOUT = 60.0  # seconds to wait for a lock


def open_storage(path: Path) -> optuna.storages.RDBStorage:
    """Open the SQLite file that holds a search's studies; make it where there is none, whole or not at all.

    Raises:
        RunError: If the file is empty, damaged, or no database of a search: nothing in it is changed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if path.exists():
            _check(path)
        else:
            with replacing(path) as draft:
                _storage(draft).engine.dispose()
        storage = _storage(path)
        _read_all(storage)
    except (
        OSError,
        OptunaError,
        SQLAlchemyError,
        sqlite3.Error,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
    ) as error:
        if disk_problem(error) is not None:
            raise
        cause = error.__cause__ if isinstance(error, OptunaError) and error.__cause__ else error
        reason = getattr(cause, "orig", None) or cause
        raise RunError(
            f"The study {path} cannot be opened: {reason}.",
            expected="the database that the run wrote; it was not changed",
            hint="put a copy of it there, or start a new run",
        ) from error
    event.listen(storage.engine, "connect", _fast_and_safe)
    storage.engine.dispose()  # so that connections opened before the listener are opened anew
    return storage


def _storage(path: Path) -> optuna.storages.RDBStorage:
    # The URL names the kind of database alone: a path is no URL, it may hold "?", "#" or "{".
    connect = partial(sqlite3.connect, str(path), timeout=_LOCK_TIMEOUT, check_same_thread=False)
    return optuna.storages.RDBStorage("sqlite:///study.db", engine_kwargs={"creator": connect})


def _check(path: Path) -> None:
    """Refuse what Optuna would fill with tables of its own, as if nothing had been searched yet."""
    if path.stat().st_size == 0:
        raise ValueError("it is empty")
    with closing(sqlite3.connect(str(path), timeout=_LOCK_TIMEOUT)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables >= _TABLES:
            raise ValueError("it is a database of something else")
        studies = [name for (name,) in connection.execute("SELECT study_name FROM studies")]
        if studies and not any(str(name).startswith(STUDY) for name in studies):
            raise ValueError(f"it holds a study of something else, {str(studies[0])!r}")
        (state,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if state != "ok":
            raise ValueError(f"it is damaged ({state})")
    with path.open("rb") as stream:
        versions = stream.read(20)[18:]
    if set(versions) - {1, 2}:  # SQLite opens such a file, but for reading alone
        raise ValueError("it is damaged (its header)")


def _read_all(storage: optuna.storages.RDBStorage) -> None:
    """Read every study and trial once: a changed byte in a value is found here, before anything relies on it."""
    for study in storage.get_all_studies():
        trials = storage.get_all_trials(study._study_id, deepcopy=False)
        kept = [storage.get_study_user_attrs(study._study_id), *(trial.user_attrs for trial in trials)]
        if not all(isinstance(key, str) for attributes in kept for key in attributes):
            raise ValueError("it is damaged (a key is no text)")


def _fast_and_safe(connection: Any, _: Any) -> None:
    # write-ahead logging survives a killed process and spares most of the syncs
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
