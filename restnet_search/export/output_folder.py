"""The folder of an export: what may be replaced in it, drafts beside it, and its files held against their digests."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from restnet_search.errors import ExportError
from restnet_search.files import bytes_digest, remove_abandoned

__all__ = ["read_exported", "refuse_foreign_files", "scratch_beside"]

_SCRATCH = ".restnet-scratch"  # no folder of a user's ends so
_LOCK = ".lock"  # in a scratch folder
_MOVED = ("before", "files/before")  # an export that was moved aside, and would be lost
_BESIDE = frozenset({"export.json", "README.md"})
_ABANDONED = 6 * 3600.0  # seconds without a write, after which no export is at work there


def refuse_foreign_files(folder: Path, *, is_ours: Callable[[str], bool], beside: Collection[str], ours: str) -> None:
    """Refuse a folder that holds anything but an earlier export of the same kind.

    Args:
        folder: May be missing or empty.
        is_ours: Whether a file of that name belongs to such an export, and to nothing else.
        beside: Names that are ours only beside such a file (``README.md``).
        ours: The earlier export in words, for the message.

    Raises:
        ExportError: If the folder is a file, or holds other files.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ExportError(f"{folder} is a file.", expected="a folder", hint="pass another --out DIR")
    names = {path.name for path in folder.iterdir()}
    own = {name for name in names if is_ours(name)}
    foreign = names - own - (set(beside) if own else set())
    if foreign:
        raise ExportError(
            f"The folder {folder} holds something else: {', '.join(sorted(foreign)[:4])}.",
            expected=f"a new or empty folder, or one with an earlier {ours}",
            hint="pass another --out DIR",
        )


@contextmanager
def scratch_beside(folder: Path) -> Iterator[Path]:
    """Yield a scratch folder on the disk of ``folder``, so that moving files there is a rename; it is removed after.

    Those that killed processes left for the same folder are removed before. A process holds a lock in its own as long
    as it lives, so one whose lock is free was left.
    """
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep_scratch(folder)
    outer = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=_SCRATCH, dir=folder.parent))
    try:
        with FileLock(outer / _LOCK):
            scratch = outer / "files"
            scratch.mkdir()
            yield scratch
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def _sweep_scratch(folder: Path) -> None:
    """Remove the scratch folders that killed exports left, of this version and of earlier ones."""
    left = [path for path in folder.parent.iterdir() if path.name.startswith(f".{folder.name}-") and _is_folder(path)]
    ours = [path for path in left if path.name.endswith(_SCRATCH)]
    ours = [path for path in ours if not any((path / place).exists() for place in _MOVED)]
    locked = [path for path in ours if (path / _LOCK).exists()]
    remove_abandoned([path for path in locked if _is_free(path / _LOCK)], older=0)
    earlier = [path for path in left if _is_of_earlier_version(path, folder.name)]
    remove_abandoned([*(path for path in ours if path not in locked), *earlier], older=_ABANDONED)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_free(lock: Path) -> bool:
    from filelock import FileLock, Timeout

    try:
        with FileLock(lock, timeout=0):
            return True
    except (Timeout, OSError):
        return False


def _is_of_earlier_version(path: Path, name: str) -> bool:
    """Say whether a folder is a scratch folder of versions whose names had no ending, and holds nothing else."""
    if re.fullmatch(rf"\.{re.escape(name)}-[a-z0-9_]{{8}}", path.name) is None:
        return False
    files = list(path.iterdir())
    return all(one.is_file() and (one.name.startswith(name) or one.name in _BESIDE) for one in files)


def read_exported(path: Path, sha256: str) -> bytes:
    """Read a file of an export whose digest is known.

    Raises:
        ExportError: If it is missing, truncated or altered.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExportError(f"The file {path} cannot be read: {error}", hint="copy all files of the export") from error
    present = bytes_digest(content)
    if present != sha256:
        raise ExportError(
            f"The file {path} is not the one that was exported: it was truncated or altered.",
            expected=f"SHA-256 {sha256}, came {present} ({len(content)} bytes)",
            hint="copy the files again, or export again",
        )
    return content
