"""Splits of a data set: labelled images, preprocessed for any model, in order."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import LongTensor, Tensor

from restnet_search.data.agreement import agree
from restnet_search.data.pixels import DEFAULT_PIXEL_BYTES, PixelCache, decode
from restnet_search.data.preprocessing import Preprocessing
from restnet_search.data.readers.digits import digits_rows, digits_source
from restnet_search.data.readers.open_source import open_source
from restnet_search.data.readers.sources import ImageSource
from restnet_search.data.sampling import stratified_sample
from restnet_search.data.unreadable import Unreadable, find_unreadable, name_some, require_few
from restnet_search.errors import DataError
from restnet_search.progress import Progress, SilentProgress
from restnet_search.space.published_data import EMBEDDED
from restnet_search.space.schema import DataSpec

__all__ = ["SPLITS", "DataSplits", "Split", "load_data"]

SPLITS = ("train", "val", "test")

Indices = Sequence[int] | np.ndarray | Tensor


class Split:
    """Labelled images of one split, decoded on demand.

    Pixels are kept in `cache` where they fit its bound, else decoded again in every pass; the values are the same.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        labels: int64 ``(n,)``, indices into `classes`.
        classes: Class names.
        digest: Content key, hexadecimal: equal for the same images in the same order, wherever they lie. What it
            covers is said by the source (`restnet_search.data.readers.sources`).
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

    def find_unreadable(self, progress: Progress) -> tuple[Unreadable, ...]:
        """Decode every image once; return those that fail."""
        return find_unreadable(self._source, self._rows, self.name, progress)

    def without(self, unreadable: Sequence[Unreadable]) -> Split:
        """Leave out these images; the others keep their order and labels."""
        return self.subset(np.delete(np.arange(len(self)), [one.position for one in unreadable]), own_pixels=True)

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

    A test split cut from val has no image in common with it; splits that lie apart on disk are taken as disjoint
    (splits that are equal as a whole or share files are refused).

    Attributes:
        classes: Class names.
        unreadable: By split, the images that were left out because they cannot be decoded.
        notes: What a user should know of the data, one sentence each.
    """

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    unreadable: Mapping[str, tuple[Unreadable, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def load_data(
    spec: DataSpec,
    *,
    root: Path | None = None,
    cache_bytes: int = DEFAULT_PIXEL_BYTES,
    progress: Progress | None = None,
    checked: Collection[str] = SPLITS,
) -> DataSplits:
    """Open the data that `spec` names, without its unreadable images.

    Args:
        spec: The space's ``data`` section. For the embedded ``digits``, ``splits`` and ``test_fraction`` do not apply.
        root: Folder of the data; wins over ``spec.root``.
        cache_bytes: Most bytes of decoded pixels kept in memory, over all splits and geometries.
        progress: Told about the check of images, and about what was left out.
        checked: Splits whose images are looked at before; a caller that reads one split need not wait for the others.

    Raises:
        DataError: If data is missing or empty, more images than ``spec.max_unreadable`` cannot be read, the splits
            disagree on the classes or hold the same images, or a subset asks for more images than there are.
    """
    progress = progress or SilentProgress()
    parts, notes = _open_splits(spec, root, PixelCache(cache_bytes))
    wanted = (spec.subset.train, spec.subset.val, spec.subset.test)
    drawn = [
        _draw(part, count, np.random.default_rng([spec.seed, 1, stream]))
        for stream, (part, count) in enumerate(zip(parts, wanted, strict=True))
    ]
    skipped: dict[str, tuple[Unreadable, ...]] = {}
    if spec.max_unreadable is not None:
        for place, part in enumerate(drawn):
            if part.name in checked and (unreadable := part.find_unreadable(progress)):
                require_few(unreadable, len(part), part.name, spec.max_unreadable)
                skipped[part.name] = unreadable
                drawn[place] = part.without(unreadable)
    for note in notes:
        progress.log(f"Data: {note}")
    for name, unreadable in skipped.items():
        files = name_some(unreadable)
        progress.log(f"Data: {len(unreadable)} of the images of {name} cannot be read, left out: {files}")
    train, val, test = drawn
    return DataSplits(train, val, test, train.classes, skipped, notes)


def _open_splits(spec: DataSpec, root: Path | None, cache: PixelCache) -> tuple[list[Split], tuple[str, ...]]:
    """Open train, val and test as wholes; return them and what a user should know of them."""
    if spec.dataset == EMBEDDED:
        source = digits_source()
        digest = source.digest()
        cut = zip(SPLITS, digits_rows(source.labels, spec.seed), strict=True)
        keys = {name: (rows, hashlib.sha256(digest.encode() + rows.tobytes()).hexdigest()) for name, rows in cut}
        return [Split(name, source, rows=rows, digest=key, cache=cache) for name, (rows, key) in keys.items()], ()
    base = root if root is not None else Path(spec.root) if spec.root else None
    places = {"train": spec.splits.train, "val": spec.splits.val, "test": spec.splits.test}
    sources, notes = agree({name: open_source(spec.dataset, base, place) for name, place in places.items() if place})
    parts = [Split(name, source, cache=cache) for name, source in sources.items()]
    _check_distinct(parts)
    if spec.splits.test is None:
        parts[1:] = _cut_test(parts[1], spec)
    return parts, notes


def _cut_test(val: Split, spec: DataSpec) -> tuple[Split, Split]:
    count = round(spec.test_fraction * len(val))
    if not 0 < count < len(val):
        raise DataError(
            f"A test split of {spec.test_fraction:g} cannot be cut from {len(val)} val images.",
            expected="at least one image on either side",
            hint="set data.splits.test or data.test_fraction",
        )
    test = stratified_sample(val.labels.numpy(), count, np.random.default_rng([spec.seed, 0]))
    rest = np.delete(np.arange(len(val)), test)
    held_out = val.subset(test, own_pixels=True)
    held_out.name = "test"
    return val.subset(rest, own_pixels=True), held_out


def _draw(split: Split, count: int | None, rng: np.random.Generator) -> Split:
    if count is None or count == len(split):
        return split
    if count > len(split):
        raise DataError(
            f"data.subset.{split.name} asks for {count} images; there are {len(split)}.",
            hint=f"set data.subset.{split.name} to at most {len(split)}, or to null for all",
        )
    return split.subset(stratified_sample(split.labels.numpy(), count, rng), own_pixels=True)


def _check_distinct(parts: Sequence[Split]) -> None:
    for position, one in enumerate(parts):
        for two in parts[position + 1 :]:
            if one.digest == two.digest:
                raise DataError(
                    f"{one.name} and {two.name} hold the same images.",
                    expected="splits without common images",
                    hint="let data.splits.test be null to cut test from val",
                )
