"""Data sets whose splits are text files that list images: Oxford-IIIT Pet and DTD."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from restnet_search.data.readers.sources import Extent, FileSource
from restnet_search.errors import DataError

__all__ = ["read_dtd", "read_pets"]


def read_pets(folder: Path, split: str, *, species: bool) -> FileSource:
    """Read a split of Oxford-IIIT Pet: lines ``Breed_number class species breed`` (ids from 1) in ``annotations/``.

    Args:
        folder: Holds ``images/`` and ``annotations/``.
        split: ``trainval`` or ``test``.
        species: Classes are Cat and Dog instead of the 37 breeds.

    Raises:
        DataError: If a list or a listed image is missing, or a line cannot be read; names it.
    """
    names: dict[int, str] = {}
    rows: list[tuple[str, int]] = []
    # Both lists name the classes, so that they are the same for both splits.
    for listed in ("trainval", "test"):
        path = folder / "annotations" / f"{listed}.txt"
        for number, line in enumerate(_lines(path), start=1):
            try:
                image, breed, kind, _ = line.split()
                label = int(kind if species else breed)
            except ValueError as error:
                raise DataError(f"{path}, line {number} cannot be read: {line!r}", expected=_PET_LINE) from error
            name = {1: "Cat", 2: "Dog"}.get(label, "") if species else _title(image)
            if not name or names.setdefault(label, name) != name:
                raise DataError(f"{path}, line {number}: class {label} is no breed of its own", expected=_PET_LINE)
            if listed == split:
                rows.append((f"{image}.jpg", label))
    if sorted(names) != list(range(1, len(names) + 1)):
        raise DataError(f"The classes in {folder / 'annotations'} are not numbered from 1 on without a gap.")
    labels = np.array([label - 1 for _, label in rows], dtype=np.int64)
    classes = tuple(names[label] for label in sorted(names))
    return FileSource(_extents(folder / "images", [name for name, _ in rows]), labels, classes)


def read_dtd(folder: Path, split: str) -> FileSource:
    """Read a split of DTD: lines ``class/image.jpg`` in ``labels/``; the partition's number ends the split's name.

    Raises:
        DataError: If a list or a listed image is missing, or a line cannot be read; names it.
    """
    number = split.lstrip("abcdefghijklmnopqrstuvwxyz")
    listed: dict[str, list[str]] = {}
    for part in ("train", "val", "test"):
        path = folder / "labels" / f"{part}{number}.txt"
        listed[f"{part}{number}"] = lines = _lines(path)
        for place, line in enumerate(lines, start=1):
            if line.count("/") != 1:
                raise DataError(f"{path}, line {place} cannot be read: {line!r}", expected="class/image.jpg")
    classes = tuple(sorted({line.split("/")[0] for lines in listed.values() for line in lines}))
    labels = np.array([classes.index(line.split("/")[0]) for line in listed[split]], dtype=np.int64)
    return FileSource(_extents(folder / "images", listed[split]), labels, classes)


_PET_LINE = "lines such as `Abyssinian_100 1 1 1`: image, class, species, breed"


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read {path}: {error}", hint="unpack the archive again") from error
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _extents(images: Path, names: Sequence[str]) -> list[Extent]:
    """Return where the listed images are; all that are missing are named at once."""
    extents, missing = [], []
    for name in names:
        path = images / name
        if path.is_file():
            extents.append(Extent(str(path), name, 0, path.stat().st_size))
        else:
            missing.append(name)
    if missing:
        first = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise DataError(
            f"{len(missing)} of {len(names)} listed images are not in {images}: {first}",
            hint="unpack the archive again",
        )
    return extents


def _title(image: str) -> str:
    """``american_bulldog_100`` -> ``American Bulldog``, as torchvision names the breeds."""
    return " ".join(part.title() for part in image.rsplit("_", 1)[0].split("_"))
