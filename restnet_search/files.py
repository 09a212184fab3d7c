"""Write files whole or not at all, whatever kills the process, and name what a file holds by its digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

__all__ = ["bytes_digest", "file_digest", "replacing", "write_atomically"]


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


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, hexadecimal; the file is read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def bytes_digest(content: bytes) -> str:
    """Return the SHA-256 of content in memory, hexadecimal: the :func:`file_digest` of a file that holds it."""
    return hashlib.sha256(content).hexdigest()
