"""Kept features on disk: bounded, least recently used out first, checked when read, shared by processes."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from restnet_search.files import inside
from restnet_search.search.features.feature_files import (
    DamagedFile,
    FeatureFile,
    FeatureWriter,
    MappedRows,
    create_file,
    map_rows,
    read_header,
)

__all__ = ["CacheEntry", "DiskStore", "features_folder"]

_SUFFIX = ".safetensors"
_OLD_SUFFIX = ".features"  # of files that earlier versions wrote: counted and removed, never read
_LOCK_TIMEOUT = 3600.0  # seconds; then it is built twice, and one of both is kept
_ABANDONED = 3600.0  # seconds without a write, after which a draft is one that a killed process left

_log = logging.getLogger("restnet_search")


def features_folder(cache: Path) -> Path:
    """Return the folder of features below the cache folder, which fitted anchors share."""
    return cache / "features"


@dataclass(frozen=True)
class CacheEntry:
    """A file: ``size`` in bytes, ``used`` in seconds since 1970; ``file`` is None where its header is damaged."""

    path: Path
    size: int
    used: float
    file: FeatureFile | None


class DiskStore:
    """Files of features below one folder, by key, at most ``bound`` bytes of them.

    Several processes may share the folder. A file appears whole or not at all; using one moves its modification time,
    by which the least recently used is found. A file that is evicted while it is mapped stays readable there.
    """

    def __init__(self, folder: Path, bound: int) -> None:
        self.folder, self.bound = folder, bound

    def path(self, key: str) -> Path:
        return inside(self.folder, f"{key}{_SUFFIX}")

    def open(self, key: str) -> tuple[FeatureFile, MappedRows] | None:
        """Map an entry's rows after checking them; None where there is none, or a damaged one, which is removed."""
        path = self.path(key)
        try:
            file = read_header(path)
            if file.metadata["key"] != key:
                raise DamagedFile(f"it says that its key is {file.metadata['key']}")
            rows = map_rows(file)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (DamagedFile, OSError) as error:
            _log.warning("the kept features %s are damaged (%s); they are computed again", path, error)
            _remove(path)
            return None
        self.touch(key)
        return file, rows

    def touch(self, key: str) -> bool:
        """Mark an entry as used now; return False if it is gone."""
        try:
            os.utime(self.path(key))
        except FileNotFoundError:
            return False
        except OSError:  # a folder that may only be read
            return True
        return True

    def create(
        self, key: str, dtype: str, shape: Sequence[int], metadata: Mapping[str, str]
    ) -> AbstractContextManager[FeatureWriter]:
        """Write an entry, for which room was made; the rest is as for ``create_file``."""
        return create_file(self.path(key), dtype, shape, {"key": key, **metadata})

    def reserve(self, length: int) -> None:
        """Make room for ``length`` bytes of new entries.

        Raises:
            OSError: If the folder cannot be made, or the disk has not so much left.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.make_room(length)
        free = shutil.disk_usage(self.folder).free
        if free < length:
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {length:,} bytes wanted, {free:,} free")

    def make_room(self, length: int = 0) -> None:
        """Remove abandoned drafts, and the least recently used entries until ``length`` more bytes fit the bound."""
        for draft in self.folder.glob(".*.tmp"):
            with suppress(FileNotFoundError):
                if time.time() - draft.stat().st_mtime > _ABANDONED:
                    _remove(draft)
        files = sorted(self._files(), key=lambda item: item[1].st_mtime)
        total = sum(status.st_size for _, status in files)
        for path, status in files:
            if total + length <= self.bound:
                return
            _remove(path)
            total -= status.st_size

    @contextmanager
    def building(self, name: str) -> Iterator[None]:
        """Hold the right to build what ``name`` stands for, so that processes do not compute the same twice.

        A process that does not get it goes on without: of two equal files, the last one stays.

        Raises:
            OSError: If the lock cannot be written.
        """
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(inside(self.folder, f"{name}.lock"), timeout=_LOCK_TIMEOUT, poll_interval=0.1)
        with suppress(Timeout):
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def entries(self) -> list[CacheEntry]:
        """Return all entries, the most recently used first."""
        entries: list[CacheEntry] = []
        for path, status in self._files():
            file = None
            with suppress(DamagedFile, OSError):
                file = read_header(path)
            entries.append(CacheEntry(path, status.st_size, status.st_mtime, file))
        return sorted(entries, key=lambda entry: -entry.used)

    def clear(self) -> int:
        """Remove every entry, and what killed processes left; return the bytes that were freed."""
        freed = 0
        for path in list(self.folder.iterdir()) if self.folder.is_dir() else []:
            with suppress(FileNotFoundError):
                freed += path.stat().st_size
            _remove(path)
        return freed

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        files: list[tuple[Path, os.stat_result]] = []
        for path in [path for suffix in (_SUFFIX, _OLD_SUFFIX) for path in self.folder.glob(f"*{suffix}")]:
            with suppress(FileNotFoundError):  # another process was quicker
                files.append((path, path.stat()))
        return files


def _remove(path: Path) -> None:
    with suppress(OSError):  # gone already, or another process has it open where that matters
        path.unlink()
