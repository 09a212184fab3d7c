"""Sources of images: files and tar members (through timm's readers), other data sets, arrays.

A source decodes image ``i`` the same way in any thread or process: it keeps no file open and no position.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from timm.utils.misc import natural_key
from torch import Tensor

from restnet_search.data.readers.color import to_rgb
from restnet_search.errors import DataError

__all__ = ["ArraySource", "DatasetSource", "Extent", "FileSource", "ImageSource", "RelabelledSource", "file_source"]

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

    def check(self, index: int) -> None:
        """Raise the DataError that `image` would, in less time."""
        ...

    def name(self, index: int) -> str:
        """Return the name of the image in errors."""
        ...

    def digest(self) -> str:
        """Content key, hexadecimal."""
        ...


@dataclass(frozen=True)
class Extent:
    """Bytes of one image: `size` bytes of the file at `path` from `offset`; `name` is relative to the data's root."""

    path: str
    name: str
    offset: int
    size: int

    @property
    def where(self) -> str:
        """The path to name in errors; ``x.tar!cat/1.png`` for the member of a tar."""
        return self.path if Path(self.path).name == Path(self.name).name else f"{self.path}!{self.name}"

    def read(self) -> bytes:
        with Path(self.path).open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class FileSource:
    """Images in files or inside uncompressed tar files; ``empty`` names class folders that hold none.

    The digest covers class names, every image's name, size in bytes and label, and the bytes of 64 images spread
    evenly. It does not see a change to the bytes of the other images that keeps their sizes.
    """

    def __init__(
        self, extents: Sequence[Extent], labels: np.ndarray, classes: tuple[str, ...], empty: tuple[str, ...] = ()
    ) -> None:
        self.empty = empty
        self.extents = list(extents)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.classes = classes

    def image(self, index: int) -> Image.Image:
        extent = self.extents[index]
        return _decode(extent.read, extent.where)

    def check(self, index: int) -> None:
        extent = self.extents[index]
        _decode(extent.read, extent.where, fast=True)

    def name(self, index: int) -> str:
        return self.extents[index].where

    def digest(self) -> str:
        key = hashlib.sha256("\0".join(self.classes).encode())
        for extent, label in zip(self.extents, self.labels, strict=True):
            key.update(f"\n{extent.name}\0{extent.size}\0{label}".encode())
        for index in _spread(len(self.extents)):
            key.update(self.extents[index].read())
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
        return _decode(lambda: self._dataset[index][0], self.name(index))

    def check(self, index: int) -> None:
        if not isinstance(getattr(self._dataset, "data", None), np.ndarray | Tensor):  # else decoded already
            self.image(index)

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

    def check(self, index: int) -> None:
        """Nothing can be wrong with it."""

    def name(self, index: int) -> str:
        return f"image {index}"

    def digest(self) -> str:
        key = hashlib.sha256("\0".join(self.classes).encode() + self.labels.tobytes())
        key.update(np.ascontiguousarray(self._pixels).tobytes())
        return key.hexdigest()


def file_source(reader: ReaderImageFolder | ReaderImageInTar) -> FileSource:
    """Take over the index that a timm reader made, but not its reading: see the module's first lines."""
    index: dict[str, int]
    if isinstance(reader, ReaderImageFolder):
        root = Path(reader.root)
        extents = [
            Extent(str(path), Path(path).relative_to(root).as_posix(), 0, Path(path).stat().st_size)
            for path, _ in reader.samples
        ]
        labels = np.array([label for _, label in reader.samples])
        index = reader.class_to_idx
    else:
        extents = []
        for member, tar_name, outer in reader.samples:
            tar = str(Path(reader.root, tar_name) if tar_name else reader.root)
            # A tar inside a tar is one run of the outer tar's bytes, so offsets add up.
            offset = member.offset_data + (outer.offset_data if outer is not None else 0)
            name = f"{outer.name}!{member.name}" if outer is not None else member.name
            extents.append(Extent(tar, name, offset, member.size))
        labels, index = np.asarray(reader.targets), dict(reader.class_name_to_idx or {})
    # timm leaves open which of "cat" and "Cat" (or "1" and "01") comes first, and decides anew in every process.
    names = sorted(index, key=lambda name: (natural_key(name), name))
    places = np.zeros(max(index.values(), default=-1) + 1, dtype=np.int64)
    for place, name in enumerate(names):
        places[index[name]] = place
    return FileSource(extents, places[labels.astype(np.int64)], tuple(names))


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

    def check(self, index: int) -> None:
        self.source.check(index)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def digest(self) -> str:
        facts = "\0".join((self.source.digest(), *self.classes, *map(str, self.places)))
        return hashlib.sha256(facts.encode()).hexdigest()


def _decode(load: Any, where: str, *, fast: bool = False) -> Image.Image:
    """Decode to RGB; `fast` gives a JPEG at an eighth of its sides, which reads all of its bytes all the same."""
    loaded = None
    try:
        loaded = load()
        image = Image.open(io.BytesIO(loaded)) if isinstance(loaded, bytes) else loaded
        if fast and hasattr(image, "draft"):
            image.draft(None, (1, 1))
        return to_rgb(image)
    except Exception as error:  # decoders raise whatever they trip over, from OSError to struct.error
        raise DataError(
            f"Cannot read the image {where}: {_why(error, loaded)}",
            expected="an image file that Pillow can decode",
            hint="replace or delete the file, or let data.max_unreadable allow for some",
        ) from error


def _why(error: Exception, loaded: object) -> str:
    if isinstance(error, UnidentifiedImageError):  # its own words name an address in memory
        return "it is in no format that Pillow knows" if loaded else "the file is empty"
    return str(error)


def _spread(count: int) -> list[int]:
    return sorted(set(np.linspace(0, count - 1, min(count, _SAMPLED)).astype(int).tolist())) if count else []
