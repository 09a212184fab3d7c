"""The SQLite file of a run, in which Optuna keeps the studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from sqlalchemy import event

__all__ = ["open_storage"]


def open_storage(path: Path) -> optuna.storages.RDBStorage:
    """The SQLite file that holds a search's studies."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
    event.listen(storage.engine, "connect", _fast_and_safe)
    storage.engine.dispose()  # so that connections opened before the listener are opened anew
    return storage


def _fast_and_safe(connection: Any, _: Any) -> None:
    # write-ahead logging survives a killed process and spares most of the syncs
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
