"""The database of a run: found by its path, whatever the path's letters, and never filled where it is none of ours."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from restnet_search.errors import RunError
from restnet_search.search.run.record_store import read_records
from restnet_search.search.run.storage import STUDY, open_storage


@pytest.mark.parametrize(
    "name", ["a?b", "a#b", "100%", "a%3Fb", "two words", "größe", "{x}", "{", "a&mode=ro", "[a]", "'a'\"b"]
)
def test_any_path_is_the_path_of_its_own_database(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = tmp_path / name / "run"
    folder.mkdir(parents=True)
    study = optuna.create_study(study_name=STUDY, storage=open_storage(folder / "study.db"))
    study.tell(study.ask(), 1.0)
    again = optuna.load_study(study_name=STUDY, storage=open_storage(folder / "study.db"))
    assert [trial.value for trial in again.trials] == [1.0]
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {folder}
    assert {path.name for path in folder.iterdir()} <= {"study.db", "study.db-wal", "study.db-shm"}


def foreign(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


def other_study(path: Path) -> None:
    storage = open_storage(path)
    optuna.create_study(study_name="mine", storage=storage)
    storage.engine.dispose()


def damaged(path: Path) -> None:
    storage = open_storage(path)
    optuna.create_study(study_name=STUDY, storage=storage)
    storage.engine.dispose()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


MADE = {
    "is empty": lambda path: path.touch(),
    "not a database": lambda path: path.write_bytes(b"no database" * 500),
    "something else": lambda path: foreign(path, "CREATE TABLE mine (x)"),
    "of something else, 'mine'": other_study,
    "malformed|damaged": damaged,
    "unable to open|directory": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("reason", MADE)
def test_a_file_that_is_no_study_of_ours_is_refused_and_stays(reason: str, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    MADE[reason](path)
    before = path.read_bytes() if path.is_file() else None
    for read in (open_storage, read_records):
        with pytest.raises(
            RunError, match=rf"cannot be opened: .*({reason})" if path.is_file() or read is open_storage else "no study"
        ):
            read(path)
    assert (path.read_bytes() if path.is_file() else None) == before


CHANGED = {
    "a value of a trial": "UPDATE trial_user_attributes SET value_json = '{\"a\": '",
    "a note of the study": "UPDATE study_user_attributes SET value_json = 'nul'",
    "what a parameter may be": "UPDATE trial_params SET distribution_json = '{}'",
    "how a trial ended": "UPDATE trials SET state = 'COMPLETF'",
    "the name of a note": "UPDATE study_user_attributes SET key = CAST('note' AS BLOB)",
    "text that is no text": "UPDATE trial_user_attributes SET value_json = CAST(X'7bff7d' AS TEXT)",
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_database_whose_values_were_changed_is_refused_and_stays(what: str, tmp_path: Path) -> None:
    """SQLite finds nothing wrong with them: its own check looks at pages, not at what they hold."""
    path = tmp_path / "study.db"
    storage = open_storage(path)
    study = optuna.create_study(study_name=STUDY, storage=storage)
    trial = study.ask()
    trial.suggest_float("lr", 0.1, 1.0)
    trial.set_user_attr("record", {"a": 1})
    study.set_user_attr("note", 1)
    study.tell(trial, 1.0)
    storage.engine.dispose()
    open_storage(path).engine.dispose()
    foreign(path, CHANGED[what])
    before = path.read_bytes()
    for read in (open_storage, read_records):
        with pytest.raises(RunError, match=r"study\.db cannot be opened: "):
            read(path)
    assert path.read_bytes() == before
