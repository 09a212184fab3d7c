"""Open a folder of class folders, or an uncompressed tar of them, through timm's readers."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

from timm.data import create_dataset
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_image_in_tar import ReaderImageInTar

from restnet_search.data.readers.sources import FileSource, file_source
from restnet_search.errors import DataError

__all__ = ["BROKEN", "empty_folders", "listing", "open_folder"]

BROKEN = (AssertionError, ImportError, IndexError, OSError, RuntimeError, TypeError, ValueError, tarfile.TarError)
"""Errors that timm's readers and torchvision's data sets raise for data that they cannot use."""


def open_folder(path: Path) -> FileSource:
    """Open a folder or tar.

    Raises:
        DataError: If it holds no images or cannot be read.
    """
    try:
        opened: Any = create_dataset("", root=str(path), search_split=False)
        reader: ReaderImageFolder | ReaderImageInTar = opened.reader
    except BROKEN as error:
        raise DataError(
            f"Cannot read {path}: {error}",
            expected="images in one folder per class (a folder, or an uncompressed .tar)",
        ) from error
    source = file_source(reader)
    source.empty = empty_folders(path, source.classes)
    return source


def empty_folders(path: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return class folders of a split without any image; hidden ones and those with folders inside are no classes."""
    if not path.is_dir():
        return ()
    return tuple(
        sorted(
            entry.name
            for entry in path.iterdir()
            if entry.is_dir()
            and not entry.name.startswith((".", "__"))
            and entry.name not in classes
            and not any(below.is_dir() for below in entry.iterdir())
        )
    )


def listing(root: Path) -> str:
    """Return the names in a folder, the first eight of them, as one phrase."""
    if root.is_file():
        return "a file"
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in root.iterdir())
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"
