"""Open a split that is a folder of class folders, or a tar of them."""

from __future__ import annotations

from pathlib import Path

from restnet_search.data.readers.folders import open_class_folders
from restnet_search.data.readers.sources import FileSource
from restnet_search.data.readers.tars import open_tar
from restnet_search.errors import first_of

__all__ = ["listing", "open_folder"]


def open_folder(path: Path) -> FileSource:
    """Open a folder or tar; its classes stand in natural order. One without any image gives a source without any.

    Raises:
        DataError: If it cannot be read.
    """
    return open_class_folders(path) if path.is_dir() else open_tar(path)


def listing(root: Path) -> str:
    """Return the names in a folder, the first eight of them, as one phrase."""
    if root.is_file():
        return "a file"
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in root.iterdir())
    return first_of(names, 8) or "nothing"
