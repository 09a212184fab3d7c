"""Sources of images: files and members of tars, other data sets, arrays.

A source decodes image ``i`` the same way in any thread or process: it keeps no file open and no position.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from restnet_search.data.readers.decoding import decode_image, problem_of_image, read_extent, reason_of, unreadable
from restnet_search.data.readers.file_kinds import SkippedFiles

__all__ = ["ArraySource", "DatasetSource", "Extent", "FileSource", "ImageSource", "RelabelledSource", "innermost"]

_SAMPLED = 64  # images whose bytes enter the digest of a data set on disk


class ImageSource(Protocol):
    """Labelled RGB images."""

    @property
    def labels(self) -> np.ndarray:
        """Labels, int64 ``(n,)``, indices into `classes`."""
        ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    def image(self, index: int) -> Image.Image:
        """Decode one image to RGB; raise DataError, naming the file, if that fails."""
        ...

    def content(self, index: int) -> bytes:
        """Return the bytes that one image is stored as, its pixels where it lies in no file.

        Raises:
            DataError: If they cannot be read; names the image.
        """
        ...

    def problem(self, index: int, content: bytes) -> str | None:
        """Return the reason why an image of this content cannot be decoded, None if it can; faster than `image`."""
        ...

    def size(self, index: int) -> int | None:
        """Return the bytes of its content; None where that is not known before it is read."""
        ...

    def name(self, index: int) -> str:
        """Return the name of the image in errors."""
        ...

    def digest(self) -> str:
        """Content key, hexadecimal."""
        ...


@dataclass(frozen=True)
class Extent:
    """Bytes of one image: `size` bytes of the file at `path` from `offset`; `name` is relative to the data's root.

    ``refused`` is the reason why they cannot be read although they are there by name; None where they can.
    """

    path: str
    name: str
    offset: int
    size: int
    refused: str | None = None

    @property
    def where(self) -> str:
        """The path to name in errors; ``x.tar!cat/1.png`` for the member of a tar."""
        return self.path if Path(self.path).name == Path(self.name).name else f"{self.path}!{self.name}"

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            OSError: If they cannot be read.
        """
        if self.refused is not None:
            raise OSError(self.refused)
        whole = self.path.endswith(self.name)  # a file of its own, which may have changed since it was listed
        return read_extent(Path(self.path), self.offset, None if whole else self.size)


class FileSource:
    """Images in files or inside uncompressed tar files.

    ``empty`` names class folders that hold none, ``skipped`` counts files that are none, and ``nested`` has, by class,
    one folder inside the class folder that images of it lie in.

    The digest covers class names, every image's name, size in bytes and label, and the bytes of 64 images spread
    evenly. It does not see a change to the bytes of the other images that keeps their sizes.
    """

    def __init__(
        self, extents: Sequence[Extent], labels: np.ndarray, classes: tuple[str, ...], empty: tuple[str, ...] = ()
    ) -> None:
        self.empty = empty
        self.skipped: tuple[SkippedFiles, ...] = ()
        self.nested: Mapping[str, str] = {}
        self.extents = list(extents)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.classes = classes

    def image(self, index: int) -> Image.Image:
        extent = self.extents[index]
        return decode_image(extent.read, extent.where)

    def content(self, index: int) -> bytes:
        extent = self.extents[index]
        try:
            return extent.read()
        except (OSError, ValueError) as error:
            raise unreadable(extent.where, reason_of(error)) from error

    def problem(self, index: int, content: bytes) -> str | None:
        return problem_of_image(lambda: content)

    def size(self, index: int) -> int:
        return self.extents[index].size

    def name(self, index: int) -> str:
        return self.extents[index].where

    def stamps(self, rows: np.ndarray) -> list[tuple[str, str] | None]:
        """Return what tells images apart without reading them, and what changes when one is written to.

        Returns:
            Of each its absolute place, and size, both times and number of the file that holds it; None where there is
            no file.
        """
        files: dict[str, tuple[str, str] | None] = {}
        stamps: list[tuple[str, str] | None] = []
        for row in rows:
            extent = self.extents[row]
            if extent.path not in files:
                files[extent.path] = _stamp(extent.path)
            file = files[extent.path]
            stamps.append(file and (f"{file[0]}\0{extent.offset}\0{extent.size}", file[1]))
        return stamps

    def only(self, classes: Sequence[str]) -> FileSource:
        """Return the images of these classes; the others count as skipped."""
        kept = tuple(name for name in self.classes if name in set(classes))
        places = np.array([kept.index(name) if name in kept else -1 for name in self.classes], dtype=np.int64)
        labels = places[self.labels]
        chosen = FileSource(
            [extent for extent, label in zip(self.extents, labels, strict=True) if label >= 0],
            labels[labels >= 0],
            kept,
            self.empty,
        )
        left = [extent.name for extent, label in zip(self.extents, labels, strict=True) if label < 0]
        more = (SkippedFiles("of classes that are not named", len(left), left[0]),) if left else ()
        chosen.skipped, chosen.nested = (*self.skipped, *more), {k: v for k, v in self.nested.items() if k in kept}
        return chosen

    def digest(self) -> str:
        key = hashlib.sha256("\0".join(self.classes).encode())
        for extent, label in zip(self.extents, self.labels, strict=True):
            key.update(f"\n{extent.name}\0{extent.size}\0{label}".encode())
        for index in _spread(len(self.extents)):
            try:
                key.update(self.extents[index].read())
            except (OSError, ValueError):  # an image that cannot be read has no bytes; it is reported by the check
                key.update(b"\0")
        return key.hexdigest()


class DatasetSource:
    """Any map-style data set that gives ``(image, label, ...)``, such as torchvision's.

    The digest covers class names, every label, and the pixels of 64 images spread evenly.
    """

    def __init__(self, dataset: Any, labels: np.ndarray, classes: tuple[str, ...], where: str) -> None:
        self._dataset = dataset
        self._where = where
        self.labels = np.asarray(labels, dtype=np.int64)
        self.classes = classes

    def image(self, index: int) -> Image.Image:
        return decode_image(lambda: self._dataset[index][0], self.name(index))

    def content(self, index: int) -> bytes:
        data = getattr(self._dataset, "data", None)
        if isinstance(data, np.ndarray | Tensor) and len(data) == len(self.labels):  # decoded already
            return np.ascontiguousarray(data[index]).tobytes()
        return _pixel_bytes(self.image(index))

    def problem(self, index: int, content: bytes) -> str | None:
        """Return None: what has content was decoded for it."""

    def size(self, index: int) -> int | None:
        data = getattr(self._dataset, "data", None)
        return data[index].nbytes if isinstance(data, np.ndarray | Tensor) and len(data) == len(self.labels) else None

    def name(self, index: int) -> str:
        samples = getattr(self._dataset, "samples", None)
        return str(samples[index][0]) if samples else f"{self._where}, image {index}"

    def digest(self) -> str:
        key = hashlib.sha256("\0".join(self.classes).encode() + self.labels.tobytes())
        for index in _spread(len(self.labels)):
            key.update(np.asarray(self.image(index)).tobytes())
        return key.hexdigest()


class ArraySource:
    """Images in memory: uint8, ``(n, H, W)`` grey or ``(n, H, W, 3)``. The digest covers every pixel and label."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> None:
        self._pixels = pixels
        self.labels = np.asarray(labels, dtype=np.int64)
        self.classes = classes

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self._pixels[index]).convert("RGB")

    def content(self, index: int) -> bytes:
        return np.ascontiguousarray(self._pixels[index]).tobytes()

    def problem(self, index: int, content: bytes) -> str | None:
        """Return None: nothing can be wrong with it."""

    def size(self, index: int) -> int:
        return self._pixels[index].nbytes

    def name(self, index: int) -> str:
        return f"image {index}"

    def digest(self) -> str:
        key = hashlib.sha256("\0".join(self.classes).encode() + self.labels.tobytes())
        key.update(np.ascontiguousarray(self._pixels).tobytes())
        return key.hexdigest()


@dataclass(frozen=True)
class RelabelledSource:
    """A source whose classes stand in another order, or carry other names.

    Attributes:
        source: Where the images are.
        classes: The names as they are to be.
        places: Of each of the source's classes, its index in `classes`.
    """

    source: ImageSource
    classes: tuple[str, ...]
    places: tuple[int, ...]

    @property
    def labels(self) -> np.ndarray:
        return np.array(self.places, dtype=np.int64)[self.source.labels]

    def image(self, index: int) -> Image.Image:
        return self.source.image(index)

    def content(self, index: int) -> bytes:
        return self.source.content(index)

    def problem(self, index: int, content: bytes) -> str | None:
        return self.source.problem(index, content)

    def size(self, index: int) -> int | None:
        return self.source.size(index)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def digest(self) -> str:
        facts = "\0".join((self.source.digest(), *self.classes, *map(str, self.places)))
        return hashlib.sha256(facts.encode()).hexdigest()


def innermost(source: ImageSource) -> ImageSource:
    """Return the source that holds the images, below all that rename or reorder its classes."""
    while isinstance(source, RelabelledSource):
        source = source.source
    return source


def _pixel_bytes(image: Image.Image) -> bytes:
    pixels = np.asarray(image)
    return f"{pixels.shape}".encode() + pixels.tobytes()


def _stamp(path: str) -> tuple[str, str] | None:
    # of os and not of pathlib, which takes several times as long for a million files
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    facts = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return os.path.abspath(path), " ".join(map(str, facts))  # noqa: PTH100


def _spread(count: int) -> list[int]:
    return sorted(set(np.linspace(0, count - 1, min(count, _SAMPLED)).astype(int).tolist())) if count else []
