"""Memory of images that were looked at: the hash of their bytes, and whether they decode.

What was learned of a file is believed while its size, both of its times and its number in the file system are the same;
what was learned of a content, for ever, by the same version of Pillow. Losing the memory costs time only.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import __version__ as pillow_version

__all__ = ["ImageMemory", "LookedAt", "Stamp", "images_file"]

T = TypeVar("T")

Stamp = tuple[str, str]
"""Where an image is, and what changes when it is written to (:meth:`FileSource.stamps`)."""

_READER = f"pillow {pillow_version}, 1"  # raise the number when what decodes changes
_TABLES = """
CREATE TABLE IF NOT EXISTS files (place TEXT PRIMARY KEY, facts TEXT NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contents (digest BLOB, reader TEXT, problem TEXT, PRIMARY KEY (digest, reader))
    WITHOUT ROWID;
"""
_AT_ONCE = 500  # places in one question to the database
_FRESH_NS = 20_000_000  # a file written this shortly before may be written again without its times showing it


@dataclass(frozen=True)
class LookedAt:
    """An image that was looked at: the SHA-256 of its content, None where there is none, and what is wrong with it."""

    digest: bytes | None
    problem: str | None


def images_file(cache: Path) -> Path:
    """Return the file in the cache folder that keeps what is known of images."""
    return cache / "images-1.sqlite"  # raise the number when its tables change


class ImageMemory:
    """Facts that earlier processes learned of images, in a file that several of them may use at once.

    Args:
        path: The file; it is made where it is missing, and made anew where it is damaged. None: nothing is kept.
        say: Takes one sentence where it cannot be used; everything is looked at then.
    """

    def __init__(self, path: Path | None, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say

    def digests(self, stamps: Sequence[Stamp | None]) -> list[bytes | None]:
        """Return the hashes of the images that have not changed since they were looked at; None for the others."""
        facts = dict(stamp for stamp in stamps if stamp is not None)

        def read(connection: sqlite3.Connection) -> dict[str, bytes]:
            known: dict[str, bytes] = {}
            for places in _pieces(list(facts)):
                marks = ", ".join("?" * len(places))
                rows = connection.execute(f"SELECT place, facts, digest FROM files WHERE place IN ({marks})", places)
                known |= {place: digest for place, kept, digest in rows if kept == facts[place]}
            return known

        known = self._guarded(read, {})
        return [known.get(stamp[0]) if stamp is not None else None for stamp in stamps]

    def problems(self, digests: Iterable[bytes]) -> dict[bytes, str | None]:
        """Return, for contents that were decoded before, what is wrong with each; None where nothing is."""
        wanted = list(set(digests))

        def read(connection: sqlite3.Connection) -> dict[bytes, str | None]:
            known: dict[bytes, str | None] = {}
            for some in _pieces(wanted):
                marks = ", ".join("?" * len(some))
                known |= dict(
                    connection.execute(
                        f"SELECT digest, problem FROM contents WHERE reader = ? AND digest IN ({marks})",
                        (_READER, *some),
                    )
                )
            return known

        return self._guarded(read, {})

    def remember(
        self, files: Iterable[tuple[Stamp | None, bytes]], contents: Iterable[tuple[bytes, str | None]]
    ) -> None:
        """Keep hashes of files, and what is wrong with contents. Files written a moment ago are not kept."""
        before = time.time_ns() - _FRESH_NS
        rows = [(*stamp, digest) for stamp, digest in files if stamp is not None and _changed(stamp) < before]
        decoded = [(digest, _READER, problem) for digest, problem in contents]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)
            connection.executemany("INSERT OR REPLACE INTO contents VALUES (?, ?, ?)", decoded)

        self._guarded(write, None)

    def _guarded(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Do the work; where the file is damaged, make it anew, and where it cannot be used, say so once."""
        for last in (False, True):
            if self._path is None:
                return otherwise
            try:
                return self._with_connection(self._path, work)
            except (OSError, sqlite3.Error) as error:
                damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
                if last or not (damaged and _removed(self._path)):
                    self._say(f"{self._path} cannot keep what is known of images ({error}); all are looked at.")
                    self._path = None
        return otherwise

    @staticmethod
    def _with_connection(path: Path, work: Callable[[sqlite3.Connection], T]) -> T:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=30.0)) as connection:
            with suppress(sqlite3.OperationalError):  # a file system without shared memory: slower, and as good
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_TABLES)
            with connection:
                return work(connection)


def _removed(path: Path) -> bool:
    """Remove a damaged file with what SQLite keeps beside it; say if that was possible."""
    try:
        for ending in ("", "-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _changed(stamp: Stamp) -> int:
    """Return the later of a file's two times, nanoseconds."""
    _, modified, changed, _ = map(int, stamp[1].split())
    return max(modified, changed)


def _pieces(values: Sequence[T]) -> Iterator[Sequence[T]]:
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))
