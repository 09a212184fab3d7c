"""Write files whole or not at all, whatever kills the process; name them safely, and what they hold by its digest."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from restnet_search.errors import RestnetError

__all__ = [
    "bytes_digest",
    "disk_problem",
    "file_digest",
    "inside",
    "problem_of_name",
    "remove_abandoned",
    "replacing",
    "sweep_drafts",
    "write_atomically",
]

_LONGEST = 200  # bytes of a name; file systems take 255, of which a draft's own letters take 38
_DRAFT = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # devices, on Windows

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
_DISK_WORDS = frozenset(
    {
        *(os.strerror(number).lower() for number in _DISK),
        "database or disk is full",
        "disk i/o error",
        "unexpected pos",  # torch's words
    }  # the last is torch's
)


def problem_of_name(name: str) -> str | None:
    """Return the reason why a name, or names joined by ``/``, cannot name a file below a folder; None if it can."""
    for part in name.split("/"):
        if not part:
            return "has an empty part"
        if part.startswith("."):
            return "starts with a dot"
        if "\\" in part or re.match("[A-Za-z]:", part):
            return "holds a backslash or a drive"
        if not part.isprintable():
            return "holds a control character"
        if len(part.encode(errors="replace")) > _LONGEST:
            return f"is longer than {_LONGEST} bytes"
        if _RESERVED.fullmatch(part) or part.endswith((".", " ")):
            return "is no file name on every system"
    return None


def inside(folder: Path, name: str, *, error: type[RestnetError] = RestnetError) -> Path:
    """Return the path of a file below a folder. Every name that a user or a file of ours gives becomes a path here.

    Args:
        folder: That the path cannot leave.
        name: Of a file, or of folders and a file joined by ``/``.
        error: The kind of error to raise.

    Raises:
        RestnetError: If the name is none: absolute, with ``..``, hidden, too long, with control characters.
    """
    if (problem := problem_of_name(name)) is not None:
        shown = name if len(name) <= 40 else f"{name[:40]}..."
        raise error(f"The name {shown!r} {problem}.", expected=f"the name of a file inside {folder}")
    return folder.joinpath(*name.split("/"))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a draft beside ``path``; it takes the place of ``path`` if the block ends well, else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        yield draft
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Write text (UTF-8, line ends as they are) or bytes; return the path."""
    with replacing(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def sweep_drafts(folder: Path, *, older: float = 0.0) -> None:
    """Remove the drafts that killed processes left in a folder.

    Args:
        folder: May be missing.
        older: Seconds since the last write; 0 only where no other process can be writing.
    """
    with suppress(OSError):
        remove_abandoned([path for path in folder.iterdir() if _DRAFT.fullmatch(path.name)], older=older)


def remove_abandoned(paths: Iterable[Path], *, older: float) -> None:
    """Remove files, and folders with all in them, into which nothing was written for so many seconds."""
    for path in paths:
        with suppress(OSError):  # gone already, or not ours to remove
            written = max(one.lstat().st_mtime for one in (path, *path.rglob("*")))
            if time.time() - written < older:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def disk_problem(error: BaseException) -> str | None:
    """Return why a disk took no more (full, over quota, read-only, broken); None where the error is of another kind.

    Libraries raise errors of their own kinds, with the system's words in them or the system's error as their cause.
    """
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        text = str(one)
        if (isinstance(one, OSError) and one.errno in _DISK) or any(words in text.lower() for words in _DISK_WORDS):
            return str(getattr(one, "orig", None) or one).splitlines()[0]  # without what sqlalchemy puts around it
        one = one.__cause__ or one.__context__
    return None


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, hexadecimal; the file is read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def bytes_digest(content: bytes) -> str:
    """Return the SHA-256 of content in memory, hexadecimal: the :func:`file_digest` of a file that holds it."""
    return hashlib.sha256(content).hexdigest()
