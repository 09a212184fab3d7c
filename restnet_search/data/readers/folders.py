"""Open a folder of class folders as torchvision's ImageFolder does: the folders directly below it are the classes.

Images may lie at any depth below their class. Hidden files and folders are none; what else is no image is counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from timm.utils.misc import natural_key

from restnet_search.data.readers.file_kinds import (
    HIDDEN,
    NO_TEXT,
    count_skipped,
    is_hidden,
    is_image_name,
    is_text,
    kind_of_file,
)
from restnet_search.data.readers.sources import Extent, FileSource
from restnet_search.errors import DataError

__all__ = ["Listing", "natural_order", "open_class_folders"]

_LOOP = "leading back to a folder above"
_OUTSIDE = "outside of any class folder"
_DEEP = "more than 100 folders deep"
_DEEPEST = 100


@dataclass
class Listing:
    """Images and other files of a split, as they are come upon.

    Attributes:
        images: (class, extent) of every image.
        skipped: (kind, name) of every file that was passed over.
        empty: Class folders without an image.
        nested: Classes with images in folders of their own, and one such folder.
    """

    images: list[tuple[str, Extent]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    nested: dict[str, str] = field(default_factory=dict)

    def add_image(self, parts: Sequence[str], extent: Extent) -> None:
        """Add an image by the parts of its name below the split; the first is its class."""
        if len(parts) < 2:
            self.skipped.append((_OUTSIDE, extent.name))
            return
        self.images.append((parts[0], extent))
        if len(parts) > 2:
            self.nested.setdefault(parts[0], "/".join(parts[:-1]))

    def source(self) -> FileSource:
        """Return the images, in the natural order of their names, with classes in natural order."""
        names = natural_order({label for label, _ in self.images})
        places = {name: place for place, name in enumerate(names)}
        ordered = sorted(self.images, key=lambda image: (natural_key(image[1].name), image[1].name))
        labels = np.array([places[label] for label, _ in ordered], dtype=np.int64)
        source = FileSource([extent for _, extent in ordered], labels, names, tuple(sorted(self.empty)))
        source.skipped, source.nested = count_skipped(self.skipped), dict(self.nested)
        return source


def natural_order(names: set[str]) -> tuple[str, ...]:
    """Sort as timm does (``2`` before ``10``, letters without regard to case), and names that it takes for equal."""
    return tuple(sorted(names, key=lambda name: (natural_key(name), name)))


def open_class_folders(root: Path) -> FileSource:
    """Open a folder of class folders; a split without any image gives a source without any.

    Raises:
        DataError: If a folder cannot be listed.
    """
    listing = Listing()
    for entry in _entries(root):
        if is_hidden(entry.name):
            listing.skipped.append((HIDDEN, entry.name))
        elif _is_folder(entry):
            if not is_text(entry.name):
                raise DataError(
                    f"The class folder {entry.name.encode(errors='backslashreplace').decode()!r} in {root} has a name"
                    " that is no UTF-8.",
                    hint="rename it",
                )
            before = len(listing.images)
            _walk(Path(entry.path), (entry.name,), (_identity(root),), listing)
            if len(listing.images) == before:
                listing.empty.append(entry.name)
        else:
            listing.skipped.append((_OUTSIDE if is_image_name(entry.name) else kind_of_file(entry.name), entry.name))
    return listing.source()


def _walk(folder: Path, parts: tuple[str, ...], above: tuple[tuple[int, int], ...], listing: Listing) -> int:
    """List a folder of a class and those below it; return how many images they hold."""
    identity, count = _identity(folder), 0
    if identity in above:
        listing.skipped.append((_LOOP, "/".join(parts)))
        return 0
    if len(parts) > _DEEPEST:
        listing.skipped.append((_DEEP, "/".join(parts)))
        return 0
    for entry in _entries(folder):
        inner = (*parts, entry.name)
        name = "/".join(inner)
        if not is_text(entry.name):
            listing.skipped.append((NO_TEXT, name))
        elif is_hidden(entry.name):
            listing.skipped.append((HIDDEN, name))
        elif _is_folder(entry):
            below = _walk(Path(entry.path), inner, (*above, identity), listing)
            if not below and is_image_name(entry.name):  # it is called an image, and is none
                listing.add_image(inner, Extent(entry.path, name, 0, 0))
                below = 1
            count += below
        elif is_image_name(entry.name):
            listing.add_image(inner, Extent(entry.path, name, 0, _size(entry)))
            count += 1
        else:
            listing.skipped.append((kind_of_file(entry.name), name))
    return count


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"Cannot list the folder {folder}: {error.strerror or error}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _size(entry: os.DirEntry[str]) -> int:
    """Return the size in bytes; 0 for a link to nothing, whose reading fails later and is counted then."""
    try:
        return entry.stat().st_size
    except OSError:
        return 0
