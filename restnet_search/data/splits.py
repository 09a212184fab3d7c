"""Splits of a data set: labelled images, preprocessed for any model, in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from torch import LongTensor, Tensor

from restnet_search.data.class_names import ClassOrder, in_classes
from restnet_search.data.inventory import DataInventory
from restnet_search.data.pixels import PixelCache, decode
from restnet_search.data.preprocessing import Preprocessing
from restnet_search.data.readers.sources import ImageSource
from restnet_search.data.unreadable import Unreadable
from restnet_search.errors import DataError

__all__ = ["SPLITS", "DataSplits", "Split"]

SPLITS = ("train", "val", "test")

Indices = Sequence[int] | np.ndarray | Tensor


class Split:
    """Labelled images of one split, decoded on demand.

    Pixels are kept in `cache` where they fit its bound, else decoded again in every pass; the values are the same.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        labels: int64 ``(n,)``, indices into `classes`.
        classes: Class names.
        digest: Content key, hexadecimal: equal for the same images in the same order, wherever they lie. It covers all
            bytes if the images were looked at when the data was opened, else what the source says
            (`restnet_search.data.readers.sources`).
    """

    def __init__(
        self,
        name: str,
        source: ImageSource,
        *,
        rows: np.ndarray | None = None,
        digest: str | None = None,
        cache: PixelCache | None = None,
    ) -> None:
        self.name = name
        self.classes = source.classes
        self.digest = source.digest() if digest is None else digest
        self._source = source
        self._rows = np.arange(len(source.labels)) if rows is None else rows
        self._cache = PixelCache() if cache is None else cache
        self._home, self._home_positions = self, np.arange(len(self._rows))
        self.labels = LongTensor(torch.from_numpy(source.labels[self._rows]))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def source(self) -> ImageSource:
        """Return the source of its images."""
        return self._source

    @property
    def pixels(self) -> PixelCache:
        """Return the cache of its decoded pixels."""
        return self._cache

    @property
    def rows(self) -> np.ndarray:
        """Return int64 ``(n,)``: which images of `source` are its own, in its order."""
        return self._rows

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {len(self)} images, {len(self.classes)} classes)"

    def subset(self, indices: Indices, *, own_pixels: bool = False) -> Split:
        """Return the images at `indices`, in that order; pixels are shared with this split where they fit memory.

        Args:
            indices: ``(m,)``, of this split.
            own_pixels: Do not share: for a subset whose parent is not used again.
        """
        chosen = self._positions(indices)
        digest = hashlib.sha256(self.digest.encode() + chosen.tobytes()).hexdigest()
        part = Split(self.name, self._source, rows=self._rows[chosen], digest=digest, cache=self._cache)
        if not own_pixels:
            part._home, part._home_positions = self._home, self._home_positions[chosen]
        return part

    def identified_by(self, content: str) -> Split:
        """Return the same images under a digest that covers `content`, the hash of every byte of them, too."""
        digest = hashlib.sha256(f"{self.digest} {content}".encode()).hexdigest()
        return Split(self.name, self._source, rows=self._rows, digest=digest, cache=self._cache)

    def in_order(self, classes: Sequence[str]) -> Split:
        """Return the same images with the classes in another order.

        Raises:
            ValueError: If a class is missing there.
        """
        if tuple(classes) == self.classes:
            return self
        digest = hashlib.sha256("\0".join((self.digest, *classes)).encode()).hexdigest()
        source = in_classes(self._source, classes)
        return Split(self.name, source, rows=self._rows, digest=digest, cache=self._cache)

    def image(self, index: int) -> Image.Image:
        """Decode one image as it is stored, to RGB.

        Raises:
            DataError: If it cannot be decoded; names its file.
        """
        return self._source.image(int(self._rows[index]))

    def images(self, preprocessing: Preprocessing, indices: Indices) -> Tensor:
        """Return the images at `indices`, normalised: float32 ``(len(indices), C, H, W)``.

        Raises:
            DataError: If an image cannot be decoded; names its file.
        """
        return preprocessing.normalize(self._pixels(preprocessing, self._positions(indices)))

    def batches(
        self, preprocessing: Preprocessing, batch_size: int, indices: Indices | None = None
    ) -> Iterator[Tensor]:
        """Yield the images in order (of `indices`), normalised: float32 ``(B, C, H, W)``; the last is often short.

        Raises:
            DataError: If an image cannot be decoded; names its file.
        """
        chosen = np.arange(len(self)) if indices is None else self._positions(indices)
        for start in range(0, len(chosen), batch_size):
            yield preprocessing.normalize(self._pixels(preprocessing, chosen[start : start + batch_size]))

    def _positions(self, indices: Indices) -> np.ndarray:
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(chosen) and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise IndexError(f"indices {chosen.min()}..{chosen.max()} are not all within 0..{len(self) - 1}")
        return chosen

    def _pixels(self, preprocessing: Preprocessing, positions: np.ndarray) -> Tensor:
        for owner, at in ((self._home, self._home_positions[positions]), (self, positions)):
            if self._cache.fits(len(owner), preprocessing):
                return self._cache.get(
                    owner.digest,
                    len(owner),
                    preprocessing,
                    at,
                    lambda missing, o=owner: decode(o._source, o._rows[missing], preprocessing),
                )
        return decode(self._source, self._rows[positions], preprocessing)


@dataclass(frozen=True)
class DataSplits:
    """The search trains on `train`, scores on `val`, and touches `test` once at the end.

    A test split cut from val has no image in common with it; splits that lie apart are compared byte for byte.

    Attributes:
        classes: Class names.
        unreadable: By split, the images that were left out because they cannot be decoded.
        notes: What a user should know of the data, one sentence each.
        inventory: What the splits hold, and what of it is not used.
        contents: By split that was looked at, the SHA-256 over its images' bytes and classes, in order.
        orders: Orders that the classes may stand in, by name, the present one first.
        order: The one that was decided on, and why; None where there is no other.
    """

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    unreadable: Mapping[str, tuple[Unreadable, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    inventory: DataInventory | None = None
    contents: Mapping[str, str] = field(default_factory=dict)
    orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    order: ClassOrder | None = None

    def in_order(self, classes: Sequence[str], order: ClassOrder | None = None) -> DataSplits:
        """Return the same images with the classes in another order, which was decided on for the reason in `order`.

        Raises:
            DataError: If these are not the data's classes.
        """
        if sorted(classes) != sorted(self.classes):
            other = sorted(set(classes) ^ set(self.classes))
            raise DataError(
                f"The data does not have the classes that it had: {', '.join(other[:8])}.",
                expected=f"the {len(classes)} classes that the run was started with",
                hint="point --data at the data that it was started with",
            )
        parts = {name: getattr(self, name).in_order(classes) for name in SPLITS}
        inventory = None if self.inventory is None else self.inventory.in_order(tuple(classes))
        return replace(self, **parts, classes=tuple(classes), inventory=inventory, order=order or self.order)
